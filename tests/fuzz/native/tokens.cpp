// The token index: every token of a built index is found at its row, and arbitrary arrays cause no read
// outside.
#include "index_builder.hpp"
#include "input.hpp"
#include "token_index.hpp"
#include "token_set.hpp"

namespace {

constexpr uint64_t kSlots = 96;

template <class Offset>
IndexFault probe(const uint8_t *tokens, uint64_t size, const Offset *offsets, uint64_t rows,
                 const uint32_t *slots, uint64_t slot_count, uint64_t seed, const uint8_t *queries,
                 const uint64_t *query_offsets, size_t count, int64_t *found) {
    auto hashes = std::unique_ptr<uint64_t[]>(new uint64_t[count + 1]());
    for (size_t i = 0; i < count; ++i)
        hashes[i] = hash_token(queries + query_offsets[i], query_offsets[i + 1] - query_offsets[i], seed);
    const TokenProbe<Offset> index(tokens, size, offsets, rows, slots, slot_count);
    const IndexFault fault = index.find(
        {queries, query_offsets, query_offsets + 1, hashes.get(), count, query_offsets[count]}, found);
    for (size_t i = 0; fault.kind == IndexFault::kNone && i < count; ++i)
        expect(found[i] >= -1 && found[i] < static_cast<int64_t>(rows), "a row is in the table");
    return fault;
}

// Increasing offsets of `rows` tokens over `size` bytes.
std::unique_ptr<uint64_t[]> take_offsets(Input &input, size_t rows, size_t size) {
    auto offsets = std::unique_ptr<uint64_t[]>(new uint64_t[rows + 1]());
    for (size_t i = 1; i <= rows; ++i) offsets[i] = input.take<uint8_t>() % (size + 1);
    offsets[rows] = size;
    std::sort(offsets.get(), offsets.get() + rows + 1);
    return offsets;
}

void build(Input &input) {
    const size_t rows = input.take_size(0, 40), size = input.take_size(0, 200);
    const uint64_t seed = input.take<uint64_t>(), slot_count = input.take_size(64, 160);
    auto offsets = take_offsets(input, rows, size);
    auto tokens = input.take_array<uint8_t>(size);
    using Builder = IndexBuilder<uint64_t>;
    Builder builder(tokens.get(), size, offsets.get(), rows);
    SlotTable table(rows, slot_count);
    const auto outcome = builder.build(seed, table);
    expect(outcome != Builder::kBadOffset, "the offsets increase");
    if (outcome != Builder::kBuilt) return;
    const bool duplicate = builder.second_row != Builder::kNone;
    expect(!duplicate || (builder.first_row < builder.second_row && builder.second_row < rows),
           "a duplicate has two rows");
    Buffer<uint32_t> slots = table.take_slots();
    TokenSet set;
    auto found = std::unique_ptr<int64_t[]>(new int64_t[rows + 1]);
    const IndexFault fault =
        probe<uint64_t>(tokens.get(), size, offsets.get(), rows, slots.data(), slot_count, seed, tokens.get(),
                        offsets.get(), rows, found.get());
    expect(fault.kind == IndexFault::kNone, "a built index has no fault");
    for (size_t i = 0; i < rows; ++i) {
        const uint8_t *token = tokens.get() + offsets[i];
        const size_t length = offsets[i + 1] - offsets[i];
        if (!is_utf8(token, token + length)) {
            expect(found[i] == -1, "a token that is not UTF-8 is not found");
            continue;
        }
        const bool first = set.add(token, length, set.hash(token, length));
        expect(first == (found[i] == static_cast<int64_t>(i)), "a token is found at its first row");
        expect(found[i] >= 0 && (first || duplicate), "a repeated token is a duplicate");
    }
}

template <class Offset>
void attack(Input &input) {
    const size_t rows = input.take_size(0, 20), size = input.take_size(0, 60), count = input.take_size(1, 40);
    const uint64_t seed = input.take<uint64_t>();
    const bool follows = input.take<uint8_t>() & 1;
    auto query_offsets = take_offsets(input, count, 40);
    auto queries = input.take_array<uint8_t>(40);
    auto offsets = input.take_array<Offset>(rows + 1);
    auto slots = input.take_array<uint32_t>(kSlots);
    auto tokens = input.take_array<uint8_t>(size);
    if (follows) {  // every slot leads from the first requested token to some row
        const IndexLayout layout(rows, kSlots);
        const uint32_t print = layout.fingerprint(hash_token(queries.get(), query_offsets[1], seed));
        for (size_t i = 0; i < kSlots; ++i) slots[i] = print | (slots[i] & layout.row_mask);
    }
    auto found = std::unique_ptr<int64_t[]>(new int64_t[count + 1]);
    probe<Offset>(tokens.get(), size, offsets.get(), rows, slots.get(), kSlots, seed, queries.get(),
                  query_offsets.get(), count, found.get());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Input input(data, size);
    switch (input.take<uint8_t>() % 3) {
        case 0:
            build(input);
            break;
        case 1:
            attack<uint32_t>(input);
            break;
        default:
            attack<uint64_t>(input);
    }
    return 0;
}
