/* One token through a Llama-like language model, for one or several stories: the hot path of caption decoding on CPUs.
 *
 * Decoding one token reads every weight once, so it is as fast as memory is read. General matrix libraries are built
 * for many rows and leave half of that on the table. Here one parallel region runs the whole token, in five phases a
 * layer. A phase is cut into chunks, which threads claim one by one, and it is over when its chunks are done, whoever did
 * them: a thread that the system has put aside holds nobody up, and catches up at no cost when it comes back.
 *
 * Weights are used where they lie, in float32, bfloat16 or int8 (with a scale per row); sums are float32 throughout.
 * Letters: B stories, D hidden width, H heads of width Dh, K key heads, S tokens in the cache, V vocabulary.
 */
#include <math.h>
#include <omp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

enum { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2 };

typedef struct {
    const void *data;   /* [rows, cols], row by row */
    const float *scale; /* [rows], int8 only */
    const float *bias;  /* [rows] or NULL */
    int64_t rows, cols;
    int64_t type;
} Matrix;

typedef struct {
    Matrix query, key, value, out, gate, up, down;
    const float *attention_norm, *mlp_norm; /* [D] */
    const float *query_norm, *key_norm;     /* [Dh] or NULL (Qwen3) */
    int64_t rotary; /* channels of a head that are rotated, 0 in a layer without positions (SmolLM3) */
    int64_t window; /* tokens that one sees, itself included (Mistral) */
} Layer;

typedef struct {
    const Layer *layers;
    const float *final_norm; /* [D] */
    Matrix head;             /* [V, D] */
    const double *frequencies; /* [rotary / 2], angle per position */
    int64_t num_layers, hidden, heads, key_heads, head_dim, rotary, intermediate;
    double epsilon, scaling, rotary_scaling;
} Model;

typedef struct {
    void *const *keys;   /* of each layer: [B', K, capacity, Dh] */
    void *const *values;
    int64_t capacity, type;
} Cache;

static inline uint16_t to_bfloat16(float value) { /* round to nearest, ties to even */
    union { float value; uint32_t bits; } both = {value};
    if (value != value) return 0x7fc0;
    return (uint16_t)((both.bits + 0x7fff + ((both.bits >> 16) & 1)) >> 16);
}

/* exp with a relative error below 2e-7, in a form that compilers turn into vector code. */
static inline float fast_exp(float x) {
    float clipped = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float n = (float)(int32_t)(clipped * 1.44269504f + (clipped < 0 ? -0.5f : 0.5f));
    float r = clipped - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.0f + r * (1.0f + r * (0.5f + r * (1.66666666e-1f + r * (4.16666666e-2f + r * (8.33333333e-3f
            + r * (1.38888889e-3f + r * 1.98412698e-4f))))));
    union { int32_t bits; float value; } power = {((int32_t)n + 127) << 23};
    return x != x ? x : p * power.value;
}

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

static inline float low(uint32_t word) {
    union { uint32_t bits; float value; } both = {word << 16};
    return both.value;
}

static inline float high(uint32_t word) {
    union { uint32_t bits; float value; } both = {word & 0xffff0000u};
    return both.value;
}

static inline float dot_float32(const void *row, const float *x, int64_t n) {
    const float *w = row;
    float sum = 0;
    for (int64_t i = 0; i < n; i++) sum += w[i] * x[i];
    return sum;
}

static inline float dot_bfloat16(const void *row, const float *dealt, int64_t n) {
    const uint32_t *w = row;
    const float *x = dealt, *y = dealt + n / 2;
    float a = 0, b = 0;
    for (int64_t i = 0; i < n / 2; i++) {
        a += low(w[i]) * x[i];
        b += high(w[i]) * y[i];
    }
    return a + b;
}

static inline float dot_int8(const void *row, const float *dealt, int64_t n) {
    const uint32_t *w = row;
    const float *x = dealt, *y = x + n / 4, *z = y + n / 4, *u = z + n / 4;
    float a = 0, b = 0, c = 0, d = 0;
    for (int64_t i = 0; i < n / 4; i++) {
        a += (float)((int32_t)(w[i] << 24) >> 24) * x[i];
        b += (float)((int32_t)(w[i] << 16) >> 24) * y[i];
        c += (float)((int32_t)(w[i] << 8) >> 24) * z[i];
        d += (float)((int32_t)w[i] >> 24) * u[i];
    }
    return a + b + c + d;
}

enum { PHASES = 5, CHUNKS = 8 /* of a thread's share */, LINE = 64 / sizeof(int64_t) };

/* A phase's counters, each on a cache line of its own: chunks done, then the next chunk of each thread's share. */
typedef _Atomic int64_t Counter;

/* The next chunk: of this thread's own share, so that it reads one stream, else of another's. -1 if none is left. */
static inline int64_t claim(Counter *phase, int64_t total) {
    int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
    for (int64_t turn = 0; turn < threads; turn++) {
        int64_t owner = thread + turn < threads ? thread + turn : thread + turn - threads;
        int64_t start = total * owner / threads, end = total * (owner + 1) / threads;
        Counter *next = phase + (1 + owner) * LINE;
        if (start + atomic_load_explicit(next, memory_order_relaxed) >= end) continue;
        int64_t chunk = start + atomic_fetch_add_explicit(next, 1, memory_order_acquire);
        if (chunk < end) return chunk;
    }
    return -1;
}

static inline void finish(Counter *phase) { atomic_fetch_add_explicit(phase, 1, memory_order_release); }

/* Waits until all chunks are done: at full attention for some microseconds, then letting others run, then asleep. */
static void await(Counter *phase, int64_t chunks) {
    for (int64_t round = 0; atomic_load_explicit(phase, memory_order_acquire) < chunks; round++) {
        if (round < 1000) {
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        } else if (round < 1050) {
            sched_yield();
        } else {
            nanosleep(&(struct timespec){0, 20000}, NULL);
        }
    }
}

#define EACH_CHUNK(chunk, phase, chunks) \
    for (int64_t chunk = claim(phase, chunks); chunk >= 0; finish(phase), chunk = claim(phase, chunks))

enum { SET, ADD, MULTIPLY };

/* y[b, r] = (or += or *=) W[r] . x[b] + bias for rows `from` to `to`; x is dealt out. */
static void matvec(const Matrix *m, int64_t from, int64_t to, const float *dealt, float *y, int64_t y_stride, int64_t batch, int how) {
    const int64_t n = m->cols;
    for (int64_t r = from; r < to; r++) {
        for (int64_t b = 0; b < batch; b++) { /* a row comes from memory once; further stories find it in the CPU's cache */
            const float *in = dealt + b * n;
            float sum;
            if (m->type == BFLOAT16) sum = dot_bfloat16((const uint16_t *)m->data + r * n, in, n);
            else if (m->type == INT8) sum = dot_int8((const int8_t *)m->data + r * n, in, n) * m->scale[r];
            else sum = dot_float32((const float *)m->data + r * n, in, n);
            if (m->bias) sum += m->bias[r];
            float *out = y + b * y_stride + r;
            *out = how == ADD ? *out + sum : how == MULTIPLY ? *out * sum : sum;
        }
    }
}

/* Deals x [B, n] out for matrices of a type. */
static void prepare(const float *x, int64_t n, int64_t batch, int64_t type, float *dealt) {
    for (int64_t b = 0; b < batch; b++) deal(x + b * n, n, parts_of(type), dealt + b * n);
}

static void rms_norm(const float *x, const float *weight, double epsilon, int64_t n, float *y) {
    float sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    float factor = (float)(1.0 / sqrt((double)sum / (double)n + epsilon));
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * factor * weight[i];
}

static void rotate(int64_t rotary, float *x, const float *cosine, const float *sine) {
    int64_t half = rotary / 2;
    for (int64_t i = 0; i < half; i++) {
        float first = x[i], second = x[i + half];
        x[i] = first * cosine[i] - second * sine[i];
        x[i + half] = second * cosine[i] + first * sine[i];
    }
}

static void store(void *buffer, int64_t type, int64_t at, const float *x, int64_t n) {
    if (type == BFLOAT16) for (int64_t i = 0; i < n; i++) ((uint16_t *)buffer)[at + i] = to_bfloat16(x[i]);
    else memcpy((float *)buffer + at, x, (size_t)n * sizeof(float));
}

/* One head: scores over the cached tokens from `start` to `past` and the new one, softmax, weighted sum of the values.
 *
 * query, dealt, sums: [Dh]; scores: [past + 1]; out: [Dh] */
static void attend(const void *keys, const void *values, int64_t type, int64_t start, int64_t past, int64_t n, const float *query,
                   const float *key, const float *value, float scaling, float *scores, float *dealt, float *sums,
                   float *out) {
    float highest = scores[past] = dot_float32(key, query, n) * scaling, total = 0;
    deal(query, n, parts_of(type), dealt);
    for (int64_t s = start; s < past; s++) {
        scores[s] = scaling * (type == BFLOAT16 ? dot_bfloat16((const uint16_t *)keys + s * n, dealt, n)
                                                : dot_float32((const float *)keys + s * n, dealt, n));
    }
    for (int64_t s = start; s < past; s++) highest = scores[s] > highest ? scores[s] : highest;
    for (int64_t s = start; s <= past; s++) total += scores[s] = fast_exp(scores[s] - highest);
    memset(sums, 0, (size_t)n * sizeof(float));
    if (type == BFLOAT16) {
        for (int64_t s = start; s < past; s++) {
            const uint32_t *words = (const uint32_t *)((const uint16_t *)values + s * n);
            for (int64_t i = 0; i < n / 2; i++) {
                sums[i] += scores[s] * low(words[i]);
                sums[n / 2 + i] += scores[s] * high(words[i]);
            }
        }
    } else {
        for (int64_t s = start; s < past; s++) {
            for (int64_t i = 0; i < n; i++) sums[i] += scores[s] * ((const float *)values)[s * n + i];
        }
    }
    int64_t parts = parts_of(type), words = n / parts;
    for (int64_t i = 0; i < n; i++) out[i] = (sums[i % parts * words + i / parts] + scores[past] * value[i]) / total;
}

static int64_t widest_of(const Model *m) {
    int64_t widest = m->intermediate > m->hidden ? m->intermediate : m->hidden, attended = m->heads * m->head_dim;
    return attended > widest ? attended : widest;
}

/* Floats of working memory that `decode` needs. */
int64_t decode_scratch(const Model *m, int64_t batch, int64_t capacity, int64_t threads) {
    int64_t wide = (m->heads + 2 * m->key_heads) * m->head_dim;
    int64_t counters = (m->num_layers * PHASES + 1) * (threads + 1) * LINE;
    return 2 * counters + 16 + batch * (wide + m->heads * m->head_dim + m->intermediate + 2 * (m->rotary / 2))
         + threads * (batch * (m->hidden + widest_of(m)) + capacity + 1 + 5 * m->head_dim);
}

/* RMS norms of x [B, D], dealt out for matrices of a type. */
static void prepare_normed(const Model *m, const float *x, const float *weight, int64_t batch, int64_t type,
                           float *normed, float *dealt) {
    for (int64_t b = 0; b < batch; b++) rms_norm(x + b * m->hidden, weight, m->epsilon, m->hidden, normed + b * m->hidden);
    prepare(normed, m->hidden, batch, type, dealt);
}

/* Reads one token of each story.
 *
 * x:       embeddings going in, hidden states after the final norm coming out, [B, D]
 * logits:  scores of the next token, [B, V], `logits_stride` apart
 * rows:    each story's row of the cache, [B]
 * lengths: tokens that the row holds already; the new one is written behind them, [B]
 * places:  position of the new token, [B]
 */
void decode(const Model *m, const Cache *cache, int64_t batch, const int64_t *rows, const int64_t *lengths,
            const int64_t *places, float *x, float *logits, int64_t logits_stride, float *scratch, int64_t threads) {
    const int64_t D = m->hidden, Dh = m->head_dim, half = m->rotary / 2;
    const int64_t q_size = m->heads * Dh, kv_size = m->key_heads * Dh, wide = q_size + 2 * kv_size;
    const int64_t groups = m->heads / m->key_heads, chunks = CHUNKS * threads, widest = widest_of(m);
    const int64_t stride = (threads + 1) * LINE, counters = (m->num_layers * PHASES + 1) * stride;
    Counter *phases = (Counter *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    float *mixed = (float *)(phases + counters), *attended = mixed + batch * wide;
    float *inner = attended + batch * q_size, *cosine = inner + batch * m->intermediate, *sine = cosine + batch * half;
    float *own = sine + batch * half;
    const int64_t own_size = batch * (D + widest) + cache->capacity + 1 + 5 * Dh;

    memset(phases, 0, (size_t)counters * sizeof(Counter));
    for (int64_t b = 0; b < batch; b++) {
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)places[b] * m->frequencies[i];
            cosine[b * half + i] = (float)(cos(angle) * m->rotary_scaling);
            sine[b * half + i] = (float)(sin(angle) * m->rotary_scaling);
        }
    }

#pragma omp parallel num_threads((int)threads)
    {
        float *normed = own + omp_get_thread_num() * own_size, *dealt = normed + batch * D;
        float *query = dealt + batch * widest, *key = query + Dh, *value = key + Dh, *split = value + Dh;
        float *sums = split + Dh, *scores = sums + Dh;
        Counter *phase = phases;

        for (int64_t l = 0; l < m->num_layers; l++) {
            const Layer *layer = m->layers + l;
            int ready = 0; /* inputs are made by whoever does a chunk: a latecomer must not read what has moved on */

            EACH_CHUNK(c, phase, chunks) {
                if (!ready++) prepare_normed(m, x, layer->attention_norm, batch, layer->query.type, normed, dealt);
                int64_t from = wide * c / chunks, to = wide * (c + 1) / chunks, start = 0;
                const Matrix *parts[3] = {&layer->query, &layer->key, &layer->value};
                for (int i = 0; i < 3; start += parts[i++]->rows) {
                    int64_t first = from > start ? from - start : 0, end = to - start;
                    if (end > parts[i]->rows) end = parts[i]->rows;
                    matvec(parts[i], first, end, dealt, mixed + start, wide, batch, SET);
                }
            }
            await(phase, chunks);
            phase += stride;

            EACH_CHUNK(task, phase, batch * m->heads) {
                int64_t b = task / m->heads, h = task % m->heads, kv = h / groups;
                memcpy(query, mixed + b * wide + h * Dh, (size_t)Dh * sizeof(float));
                memcpy(key, mixed + b * wide + q_size + kv * Dh, (size_t)Dh * sizeof(float));
                memcpy(value, mixed + b * wide + q_size + kv_size + kv * Dh, (size_t)Dh * sizeof(float));
                if (layer->query_norm) rms_norm(query, layer->query_norm, m->epsilon, Dh, query);
                if (layer->key_norm) rms_norm(key, layer->key_norm, m->epsilon, Dh, key);
                rotate(layer->rotary, query, cosine + b * half, sine + b * half);
                rotate(layer->rotary, key, cosine + b * half, sine + b * half);
                const int64_t base = (rows[b] * m->key_heads + kv) * cache->capacity * Dh;
                const int64_t bytes = base * (cache->type == BFLOAT16 ? 2 : 4);
                const int64_t seen = lengths[b] + 1 - layer->window, first = seen > 0 ? seen : 0;
                attend((const char *)cache->keys[l] + bytes, (const char *)cache->values[l] + bytes, cache->type, first,
                       lengths[b], Dh, query, key, value, (float)m->scaling, scores, split, sums,
                       attended + b * q_size + h * Dh);
                if (h % groups == 0) {
                    store(cache->keys[l], cache->type, base + lengths[b] * Dh, key, Dh);
                    store(cache->values[l], cache->type, base + lengths[b] * Dh, value, Dh);
                }
            }
            await(phase, batch * m->heads);
            phase += stride;

            ready = 0;
            EACH_CHUNK(c, phase, chunks) {
                if (!ready++) prepare(attended, q_size, batch, layer->out.type, dealt);
                matvec(&layer->out, D * c / chunks, D * (c + 1) / chunks, dealt, x, D, batch, ADD);
            }
            await(phase, chunks);
            phase += stride;

            ready = 0;
            EACH_CHUNK(c, phase, chunks) {
                if (!ready++) prepare_normed(m, x, layer->mlp_norm, batch, layer->gate.type, normed, dealt);
                int64_t from = m->intermediate * c / chunks, to = m->intermediate * (c + 1) / chunks;
                matvec(&layer->gate, from, to, dealt, inner, m->intermediate, batch, SET);
                for (int64_t b = 0; b < batch; b++) {
                    float *gate = inner + b * m->intermediate;
                    for (int64_t i = from; i < to; i++) gate[i] = gate[i] / (1.0f + fast_exp(-gate[i]));
                }
                matvec(&layer->up, from, to, dealt, inner, m->intermediate, batch, MULTIPLY);
            }
            await(phase, chunks);
            phase += stride;

            ready = 0;
            EACH_CHUNK(c, phase, chunks) {
                if (!ready++) prepare(inner, m->intermediate, batch, layer->down.type, dealt);
                matvec(&layer->down, D * c / chunks, D * (c + 1) / chunks, dealt, x, D, batch, ADD);
            }
            await(phase, chunks);
            phase += stride;
        }

        int ready = 0;
        EACH_CHUNK(c, phase, 4 * chunks) {
            if (!ready++) prepare_normed(m, x, m->final_norm, batch, m->head.type, normed, dealt);
            matvec(&m->head, m->head.rows * c / (4 * chunks), m->head.rows * (c + 1) / (4 * chunks), dealt, logits,
                   logits_stride, batch, SET);
        }
    }
    for (int64_t b = 0; b < batch; b++) rms_norm(x + b * D, m->final_norm, m->epsilon, D, x + b * D);
}
