// Text to the ids of a byte-pair encoding of Gemma's kind; native/bpe_table.py makes the tables.
//
// Ids are those of the `tokenizers` library, ties and all: the pair of the lowest rank is joined
// first, of equal ones the leftmost. Where an entry of the queue is out of date, but what stands
// there now makes the same piece, that library joins it at the old entry's turn; so does this.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

typedef struct {
    uint32_t left, right; // both EMPTY where nothing is
    uint32_t rank, made;
} osl_merge;

typedef struct {
    int32_t chars, added;
    uint32_t merge_mask;      // slots of `merge`, a power of two, less one
    const uint32_t *code;     // [chars], characters that are pieces, ascending
    const int32_t *code_id;   // [chars]
    const int32_t *byte_id;   // [256], pieces that stand for the bytes of all other characters
    const osl_merge *merge;   // by hash, the next free slot where that is taken
    const uint32_t *added_at; // [added + 1], where each lies in `added_text`
    const uint8_t *added_text; // pieces that are found before all else, in the order of their bytes
    const int32_t *added_id;  // [added]
} osl_bpe;

typedef struct {
    uint32_t rank, made;
    int32_t place;
} entry;

typedef struct {
    const osl_bpe *bpe;
    int32_t *id; // of each place; a place that was joined to the one before it is GONE
    int32_t *before, *behind;
    entry *queue; // a heap, the next entry first
    int64_t queued;
} state;

enum { GONE = -1, NONE = -1 };
static const uint32_t EMPTY = UINT32_MAX, SPACE = 0x2581; // what a space is spelt as

OSL_API int64_t osl_bpe_encode(const osl_bpe *bpe, const uint8_t *text, int64_t bytes,
                               int32_t literal, int32_t *ids);

static const osl_merge *merge_of(const osl_bpe *bpe, uint32_t left, uint32_t right) {
    uint32_t hash = left * 0x9e3779b1u ^ right * 0x85ebca77u;
    hash ^= hash >> 15;
    for (uint32_t step = 0; step <= bpe->merge_mask; step++) {
        const osl_merge *merge = bpe->merge + ((hash + step) & bpe->merge_mask);
        if (merge->left == left && merge->right == right)
            return merge;
        if (merge->left == EMPTY)
            return NULL;
    }
    return NULL;
}

static int precedes(const entry *a, const entry *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->place < b->place;
}

// Queues the pair that begins at a place, if it makes a piece.
static void push(state *s, int32_t place) {
    const osl_merge *merge =
        merge_of(s->bpe, (uint32_t)s->id[place], (uint32_t)s->id[s->behind[place]]);
    if (!merge)
        return;
    entry new = {merge->rank, merge->made, place};
    int64_t i = s->queued++;
    for (; i > 0 && precedes(&new, &s->queue[(i - 1) / 2]); i = (i - 1) / 2)
        s->queue[i] = s->queue[(i - 1) / 2];
    s->queue[i] = new;
}

static entry pop(state *s) {
    entry top = s->queue[0], last = s->queue[--s->queued];
    int64_t i = 0;
    for (;;) {
        int64_t child = 2 * i + 1;
        if (child >= s->queued)
            break;
        if (child + 1 < s->queued && precedes(&s->queue[child + 1], &s->queue[child]))
            child++;
        if (!precedes(&s->queue[child], &last))
            break;
        s->queue[i] = s->queue[child];
        i = child;
    }
    s->queue[i] = last;
    return top;
}

static void join(state *s, entry top) {
    int32_t place = top.place, right = s->behind[place];
    if (s->id[place] == GONE || right == NONE)
        return;
    const osl_merge *merge = merge_of(s->bpe, (uint32_t)s->id[place], (uint32_t)s->id[right]);
    if (!merge || merge->made != top.made)
        return;
    s->id[place] = (int32_t)top.made;
    s->id[right] = GONE;
    s->behind[place] = s->behind[right];
    if (s->behind[place] != NONE) {
        s->before[s->behind[place]] = place;
        push(s, place);
    }
    if (s->before[place] != NONE)
        push(s, s->before[place]);
}

// Joins n pieces in place; how many are left, or -1 where there is no memory.
static int64_t merge_all(const osl_bpe *bpe, int32_t *id, int32_t n) {
    if (n < 2)
        return n;
    // Each pair at the beginning, and two more for each that is joined.
    size_t count = (size_t)n;
    int32_t *links = malloc(2 * count * sizeof *links);
    entry *queue = malloc(3 * count * sizeof *queue);
    state s = {bpe, id, links, links + count, queue, 0};
    int64_t left = -1;
    if (links && queue) {
        for (int32_t i = 0; i < n; i++) {
            s.before[i] = i - 1;
            s.behind[i] = i + 1 < n ? i + 1 : NONE;
        }
        for (int32_t i = 0; i + 1 < n; i++)
            push(&s, i);
        while (s.queued)
            join(&s, pop(&s));
        left = 0;
        for (int32_t i = 0; i < n; i++)
            if (id[i] != GONE)
                id[left++] = id[i];
    }
    free(links);
    free(queue);
    return left;
}

// The next character of valid UTF-8, and how many bytes it takes.
static int32_t character(const uint8_t *text, uint32_t *code) {
    uint32_t lead = text[0];
    int32_t size = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    *code = size == 1 ? lead : lead & (0x7fu >> size);
    for (int32_t i = 1; i < size; i++)
        *code = *code << 6 | (text[i] & 0x3f);
    return size;
}

static int32_t id_of_character(const osl_bpe *bpe, uint32_t code) {
    int32_t low = 0, high = bpe->chars;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (bpe->code[middle] < code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < bpe->chars && bpe->code[low] == code ? bpe->code_id[low] : NONE;
}

// A stretch without added pieces; how many ids it has.
static int64_t encode(const osl_bpe *bpe, const uint8_t *text, int64_t bytes, int32_t *ids) {
    static const uint8_t SPACE_BYTES[] = {0xe2, 0x96, 0x81};
    int32_t n = 0;
    for (int64_t at = 0; at < bytes;) {
        uint32_t code;
        int32_t size = character(text + at, &code);
        const uint8_t *spelt = text + at;
        at += size;
        if (code == ' ') {
            code = SPACE;
            spelt = SPACE_BYTES;
            size = sizeof SPACE_BYTES;
        }
        int32_t id = id_of_character(bpe, code);
        if (id != NONE)
            ids[n++] = id;
        else
            for (int32_t i = 0; i < size; i++)
                ids[n++] = bpe->byte_id[spelt[i]];
    }
    return merge_all(bpe, ids, n);
}

// The byte of an added piece behind so many others, -1 behind its end.
static int added_byte(const osl_bpe *bpe, int32_t piece, int64_t depth) {
    uint32_t at = bpe->added_at[piece], end = bpe->added_at[piece + 1];
    return depth < end - at ? bpe->added_text[at + depth] : -1;
}

// The longest added piece that a text begins with, or NONE.
static int32_t longest_added(const osl_bpe *bpe, const uint8_t *text, int64_t bytes) {
    int32_t found = NONE, first = 0, last = bpe->added; // those that begin like the text
    for (int64_t depth = 0; first < last; depth++) {
        if (added_byte(bpe, first, depth) < 0)
            found = first++;
        if (depth == bytes)
            break;
        int32_t bounds[2];
        for (int bound = 0; bound < 2; bound++) {
            int32_t low = first, high = last;
            while (low < high) {
                int32_t middle = low + (high - low) / 2;
                if (added_byte(bpe, middle, depth) < text[depth] + bound)
                    low = middle + 1;
                else
                    high = middle;
            }
            bounds[bound] = low;
        }
        first = bounds[0];
        last = bounds[1];
    }
    return found;
}

// Writes the ids of `bytes` bytes of valid UTF-8, less than 2^29, and says how many they are;
// -1 where there is no memory. ids: room for three times as many as bytes. literal: added pieces
// are letters.
int64_t osl_bpe_encode(const osl_bpe *bpe, const uint8_t *text, int64_t bytes, int32_t literal,
                       int32_t *ids) {
    int64_t count = 0, begin = 0;
    for (int64_t at = 0; at <= bytes;) {
        int32_t piece = literal || at == bytes ? NONE : longest_added(bpe, text + at, bytes - at);
        if (piece == NONE && at < bytes) {
            at = literal ? bytes : at + 1;
            continue;
        }
        int64_t made = encode(bpe, text + begin, at - begin, ids + count);
        if (made < 0)
            return -1;
        count += made;
        if (piece == NONE)
            break;
        ids[count++] = bpe->added_id[piece];
        at += bpe->added_at[piece + 1] - bpe->added_at[piece];
        begin = at;
    }
    return count;
}
