/* Products of packed weights with the vectors of several stories, in registers: what decoding spends its time on.
 *
 * Weights and cached values are float32, bfloat16 or int8; sums are float32.
 */
#include <stdint.h>
#include <string.h>
#if defined(__FMA__)
#include <immintrin.h>
#endif

enum { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2 };

/* A row of 16-bit or 8-bit numbers is read as words of 32 bits, and its vector is dealt out to match: first all numbers
 * that meet a word's lowest part, then those that meet the next part. So a word is taken apart by shifts alone, which
 * is what lets one core keep up with memory. */
static inline int64_t parts_of(int64_t type) { return type == BFLOAT16 ? 2 : type == INT8 ? 4 : 1; }

static inline void deal(const float *x, int64_t n, int64_t parts, float *dealt) {
    int64_t words = n / parts;
    for (int64_t part = 0; part < parts; part++) {
        for (int64_t i = 0; i < words; i++) dealt[part * words + i] = x[i * parts + part];
    }
}

/* Vectors of the compiler's own, as wide as the CPU's. Every sum below is made in one fixed order, whatever else is made
 * beside it: a story's numbers are the same bits in any company, and by any compiler. */
#if defined(__AVX512F__)
enum { WIDTH = 16 };
#else
enum { WIDTH = 8 };
#endif
typedef float Floats __attribute__((vector_size(4 * WIDTH)));
typedef float Four __attribute__((vector_size(16)));
typedef int32_t Words __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t Bits __attribute__((vector_size(4 * WIDTH)));

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE Floats load(const float *x) {
    Floats v;
    memcpy(&v, x, sizeof v);
    return v;
}

/* sum + a b, rounded once where the CPU can: a compiler that chooses chooses differently from loop to loop. */
ALWAYS_INLINE Floats add_product(Floats sum, Floats a, Floats b) {
#if defined(__AVX512F__)
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#elif defined(__FMA__)
    return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#else
    return sum + a * b;
#endif
}

/* The numbers of a vector of words that have this place in their word. */
ALWAYS_INLINE Floats unpack(Bits words, int type, int part) {
    if (type == BFLOAT16) return part ? (Floats)(words & 0xffff0000u) : (Floats)(words << 16);
    if (type == INT8) return __builtin_convertvector((Words)(words << (24 - 8 * part)) >> 24, Floats);
    return (Floats)words;
}

ALWAYS_INLINE float unpack_one(uint32_t word, int type, int part) {
    union { uint32_t bits; float value; } both = {type == FLOAT32 ? word : part ? word & 0xffff0000u : word << 16};
    return type == INT8 ? (float)((int32_t)(word << (24 - 8 * part)) >> 24) : both.value;
}

ALWAYS_INLINE float sum_of(Floats v) {
    Four parts[WIDTH / 4];
    memcpy(parts, &v, sizeof v);
    Four sum = WIDTH == 16 ? (parts[0] + parts[WIDTH / 4 - 2]) + (parts[1] + parts[WIDTH / 4 - 1]) : parts[0] + parts[1];
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

enum { AHEAD = 512 }; /* words, which are asked of memory before their turn comes */

/* sums[b, r] = W[r] . x[b] of a few rows and vectors, whose sums stay in registers; x is dealt out, n its length. */
ALWAYS_INLINE void block(int type, int rows, int batch, const uint32_t *w, int64_t n, const float *x, float *sums,
                         int64_t stride) {
    const int parts = type == BFLOAT16 ? 2 : type == INT8 ? 4 : 1;
    const int64_t words = n / parts;
    Floats total[4][4][2] = {{{{0}}}};
    int64_t i = 0;
    for (; i + WIDTH <= words; i += WIDTH) {
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            Bits packed;
            memcpy(&packed, w + r * words + i, sizeof packed);
            __builtin_prefetch(w + r * words + i + AHEAD);
#pragma GCC unroll 4
            for (int part = 0; part < parts; part++) {
                Floats weight = unpack(packed, type, part);
#pragma GCC unroll 4
                for (int b = 0; b < batch; b++) {
                    Floats *sum = &total[r][b][part & 1];
                    *sum = add_product(*sum, weight, load(x + b * n + part * words + i));
                }
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int b = 0; b < batch; b++) {
            float sum = sum_of(parts == 1 ? total[r][b][0] : total[r][b][0] + total[r][b][1]);
            for (int64_t j = i; j < words; j++) {
                for (int part = 0; part < parts; part++) {
                    float weight = unpack_one(w[r * words + j], type, part);
                    sum = __builtin_fmaf(weight, x[b * n + part * words + j], sum);
                }
            }
            sums[b * stride + r] = sum;
        }
    }
}

/* sums[b, r] = W[r] . x[b], `stride` floats from one b to the next. */
static void products(int64_t type, const void *data, int64_t n, int64_t rows, const float *x, int64_t batch, float *sums,
                     int64_t stride) {
    const int64_t words = n / parts_of(type);
    const uint32_t *w = data;
#define BLOCKS(TYPE, BATCH, ROWS)                                                                            \
    case 8 * TYPE + BATCH:                                                                                   \
        for (; r + ROWS <= rows; r += ROWS) block(TYPE, ROWS, BATCH, w + r * words, n, x, sums + r, stride); \
        for (; r < rows; r++) block(TYPE, 1, BATCH, w + r * words, n, x, sums + r, stride);                  \
        break;
#define BATCHES(TYPE, ROWS) BLOCKS(TYPE, 1, ROWS) BLOCKS(TYPE, 2, ROWS) BLOCKS(TYPE, 3, ROWS) BLOCKS(TYPE, 4, ROWS)
    for (int64_t b = 0; b < batch; b += 4, x += 4 * n, sums += 4 * stride) {
        int64_t r = 0;
        switch (8 * type + (batch - b < 4 ? batch - b : 4)) {
            BATCHES(FLOAT32, 2)
            BATCHES(BFLOAT16, 1)
            BATCHES(INT8, 1)
        }
    }
}

/* sums[h] += sum over s of scores[h, s] V[s], for some words of each row of V, whose sums stay in registers. */
ALWAYS_INLINE void weigh(int type, int wide, int heads, const uint32_t *v, int64_t words, int64_t past,
                         const float *scores, int64_t stride, float *sums, int64_t n) {
    const int parts = type == BFLOAT16 ? 2 : 1;
    Floats total[4][2];
#pragma GCC unroll 4
    for (int at = 0; at < heads * wide * parts; at++) {
        total[at / (wide * parts)][at % (wide * parts)] =
            load(sums + at / (wide * parts) * n + at % parts * words + at / parts % wide * WIDTH);
    }
    for (int64_t s = 0; s < past; s++) {
#pragma GCC unroll 4
        for (int i = 0; i < wide; i++) {
            Bits packed;
            memcpy(&packed, v + s * words + i * WIDTH, sizeof packed);
#pragma GCC unroll 4
            for (int part = 0; part < parts; part++) {
                Floats value = unpack(packed, type, part);
#pragma GCC unroll 4
                for (int h = 0; h < heads; h++) {
                    Floats *sum = &total[h][i * parts + part];
                    *sum = add_product(*sum, scores[h * stride + s] + (Floats){0}, value);
                }
            }
        }
    }
#pragma GCC unroll 4
    for (int at = 0; at < heads * wide * parts; at++) {
        memcpy(sums + at / (wide * parts) * n + at % parts * words + at / parts % wide * WIDTH,
               &total[at / (wide * parts)][at % (wide * parts)], sizeof(Floats));
    }
}

/* sums[h] = sum over s of scores[h, s] V[s], dealt out as V's rows are. */
static void weighted_sums(int64_t type, const void *values, int64_t n, int64_t past, const float *scores, int64_t stride,
                          int64_t heads, float *sums) {
    enum { SOME = 32 }; /* rows of V that the CPU's nearest cache holds */
    const int64_t parts = parts_of(type), words = n / parts;
    memset(sums, 0, (size_t)(heads * n) * sizeof(float));
#define WEIGH(TYPE, HEADS, WIDE)                                                                                     \
    case 8 * TYPE + HEADS:                                                                                           \
        for (; i + WIDE * WIDTH <= words; i += WIDE * WIDTH)                                                         \
            weigh(TYPE, WIDE, HEADS, v + i, words, some, p, stride, out + i, n);                                     \
        for (; i + WIDTH <= words; i += WIDTH) weigh(TYPE, 1, HEADS, v + i, words, some, p, stride, out + i, n);     \
        break;
#define WEIGHS(TYPE, WIDE) WEIGH(TYPE, 1, WIDE) WEIGH(TYPE, 2, WIDE) WEIGH(TYPE, 3, WIDE) WEIGH(TYPE, 4, WIDE)
    for (int64_t s = 0; s < past; s += SOME) {
        const int64_t some = past - s < SOME ? past - s : SOME;
        const uint32_t *v = (const uint32_t *)values + s * words;
        for (int64_t h = 0; h < heads; h += 4) {
            const int64_t few = heads - h < 4 ? heads - h : 4;
            const float *p = scores + h * stride + s;
            float *out = sums + h * n;
            int64_t i = 0;
            switch (8 * type + few) {
                WEIGHS(FLOAT32, 2)
                WEIGHS(BFLOAT16, 1)
            }
            for (; i < words; i++) {
                for (int64_t at = 0; at < few * parts; at++) {
                    const int64_t head = at / parts, part = at % parts;
                    float *sum = out + head * n + part * words + i;
                    for (int64_t j = 0; j < some; j++) {
                        float value = unpack_one(v[j * words + i], (int)type, (int)part);
                        *sum = __builtin_fmaf(p[head * stride + j], value, *sum);
                    }
                }
            }
        }
    }
}
