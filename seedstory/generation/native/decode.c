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

#include "products.h"

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
    enum { TILE = 16, MANY = 8 }; /* weights that the CPU's cache holds until all stories have met them */
    const int64_t bytes = m->cols / parts_of(m->type) * 4;
    float sums[MANY * TILE];
    for (int64_t r = from; r < to; r += TILE) {
        const int64_t rows = to - r < TILE ? to - r : TILE;
        for (int64_t first = 0; first < batch; first += MANY) {
            const int64_t some = batch - first < MANY ? batch - first : MANY;
            products(m->type, (const char *)m->data + r * bytes, m->cols, rows, dealt + first * m->cols, some, sums, TILE);
            for (int64_t b = 0; b < some; b++) {
                for (int64_t i = 0; i < rows; i++) {
                    float sum = sums[b * TILE + i], *out = y + (first + b) * y_stride + r + i;
                    if (m->scale) sum *= m->scale[r + i];
                    if (m->bias) sum += m->bias[r + i];
                    *out = how == ADD ? *out + sum : how == MULTIPLY ? *out * sum : sum;
                }
            }
        }
    }
}

/* Deals x [B, n] out for matrices of a type. */
static void prepare(const float *x, int64_t n, int64_t batch, int64_t type, float *dealt) {
    for (int64_t b = 0; b < batch; b++) deal(x + b * n, n, parts_of(type), dealt + b * n);
}

static void rms_norm(const float *x, const float *weight, double epsilon, int64_t n, float *y) {
    float sum;
    products(FLOAT32, x, n, 1, x, 1, &sum, 1);
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

/* Scores to weights that do not yet add up to 1; gives what they add up to. */
static float softmax_total(float *scores, int64_t n) {
    float highest = scores[0], total = 0;
    for (int64_t s = 1; s < n; s++) highest = scores[s] > highest ? scores[s] : highest;
    for (int64_t s = 0; s < n; s++) scores[s] = fast_exp(scores[s] - highest);
    Floats sums = {0};
    int64_t s = 0;
    for (; s + WIDTH <= n; s += WIDTH) sums += load(scores + s);
    for (; s < n; s++) total += scores[s];
    return total + sum_of(sums);
}

/* Some heads that share a key head: scores over the last `past` cached tokens and the new one, softmax, weighted sum of values.
 *
 * queries, dealt, sums: [heads, Dh]; key, value: [Dh]; scores: [heads, past + 1]; out: [heads, Dh] */
static void attend(const void *keys, const void *values, int64_t type, int64_t past, int64_t n, int64_t heads,
                   const float *queries, const float *key, const float *value, float scaling, float *scores,
                   float *dealt, float *sums, float *out) {
    const int64_t stride = past + 1, parts = parts_of(type), words = n / parts;
    for (int64_t h = 0; h < heads; h++) deal(queries + h * n, n, parts, dealt + h * n);
    products(type, keys, n, past, dealt, heads, scores, stride);
    products(FLOAT32, key, n, 1, queries, heads, scores + past, stride);
    for (int64_t at = 0; at < heads * stride; at++) scores[at] *= scaling;
    float totals[heads];
    for (int64_t h = 0; h < heads; h++) totals[h] = softmax_total(scores + h * stride, stride);
    weighted_sums(type, values, n, past, scores, stride, heads, sums);
    for (int64_t h = 0; h < heads; h++) {
        const float own = scores[h * stride + past];
        for (int64_t i = 0; i < n; i++) {
            out[h * n + i] = (sums[h * n + i % parts * words + i / parts] + own * value[i]) / totals[h];
        }
    }
}

static int64_t widest_of(const Model *m) {
    int64_t widest = m->intermediate > m->hidden ? m->intermediate : m->hidden, attended = m->heads * m->head_dim;
    return attended > widest ? attended : widest;
}

/* Floats of working memory that `decode` needs. */
int64_t decode_scratch(const Model *m, int64_t batch, int64_t capacity, int64_t threads) {
    int64_t wide = (m->heads + 2 * m->key_heads) * m->head_dim, groups = m->heads / m->key_heads;
    int64_t counters = (m->num_layers * PHASES + 1) * (threads + 1) * LINE;
    return 2 * counters + 16 + batch * (wide + m->heads * m->head_dim + m->intermediate + 2 * (m->rotary / 2))
         + threads * (batch * (m->hidden + widest_of(m)) + groups * (capacity + 1) + (2 + 3 * groups) * m->head_dim);
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
    const int64_t own_size = batch * (D + widest) + groups * (cache->capacity + 1) + (2 + 3 * groups) * Dh;
    /* Heads that share keys read them once, where there is work for all threads that way. */
    const int64_t together = batch * m->key_heads >= threads ? groups : 1, tasks = batch * m->heads / together;

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
        float *query = dealt + batch * widest, *key = query + groups * Dh, *value = key + Dh, *split = value + Dh;
        float *sums = split + groups * Dh, *scores = sums + groups * Dh;
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

            EACH_CHUNK(task, phase, tasks) {
                int64_t b = task * together / m->heads, h = task * together % m->heads, kv = h / groups;
                memcpy(query, mixed + b * wide + h * Dh, (size_t)(together * Dh) * sizeof(float));
                memcpy(key, mixed + b * wide + q_size + kv * Dh, (size_t)Dh * sizeof(float));
                memcpy(value, mixed + b * wide + q_size + kv_size + kv * Dh, (size_t)Dh * sizeof(float));
                for (int64_t i = 0; i < together; i++) {
                    if (layer->query_norm) rms_norm(query + i * Dh, layer->query_norm, m->epsilon, Dh, query + i * Dh);
                    rotate(layer->rotary, query + i * Dh, cosine + b * half, sine + b * half);
                }
                if (layer->key_norm) rms_norm(key, layer->key_norm, m->epsilon, Dh, key);
                rotate(layer->rotary, key, cosine + b * half, sine + b * half);
                const int64_t base = (rows[b] * m->key_heads + kv) * cache->capacity * Dh;
                const int64_t unseen = lengths[b] + 1 - layer->window, first = unseen > 0 ? unseen : 0;
                const int64_t bytes = (base + first * Dh) * (cache->type == BFLOAT16 ? 2 : 4);
                attend((const char *)cache->keys[l] + bytes, (const char *)cache->values[l] + bytes, cache->type,
                       lengths[b] - first, Dh, together, query, key, value, (float)m->scaling, scores, split, sums,
                       attended + b * q_size + h * Dh);
                if (h % groups == 0) {
                    store(cache->keys[l], cache->type, base + lengths[b] * Dh, key, Dh);
                    store(cache->values[l], cache->type, base + lengths[b] * Dh, value, Dh);
                }
            }
            await(phase, tasks);
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
