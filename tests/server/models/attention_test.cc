// The attention layer: its maps against a plain softmax, its output against its maps.
#include "server/models/layers/attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "server/operators/dense_operator.h"
#include "tests/support/recording_sink.h"
#include "tests/support/status_matchers.h"

namespace ess::models {
namespace {

using ess::testing::IsOk;
using ess::testing::RecordingSink;

AttentionInputs RandomInputs(int64_t heads, int64_t shared, int64_t length, int64_t head_dim) {
  return {.queries = at::randn({heads, length, head_dim}),
          .keys = at::randn({shared, length, head_dim}),
          .values = at::randn({length, shared, head_dim}).transpose(0, 1),
          .scale = 0.7};
}

// float64 [L, L], row by row.
at::Tensor PlainMap(const AttentionInputs& inputs, int64_t head, int64_t shared_head) {
  const at::Tensor scores =
      at::matmul(inputs.queries[head].to(at::kDouble), inputs.keys[shared_head].to(at::kDouble).t())
          .mul(inputs.scale);
  const double cap = inputs.soft_cap;
  const at::Tensor capped = cap > 0 ? at::tanh(scores / cap) * cap : scores;
  at::Tensor map = at::zeros_like(scores);
  for (int64_t row = 0; row < scores.size(0); ++row) {
    const int64_t first = inputs.window > 0 ? std::max<int64_t>(row - inputs.window + 1, 0) : 0;
    const int64_t count = row + 1 - first;
    map[row].narrow(0, first, count).copy_(at::softmax(capped[row].narrow(0, first, count), 0));
  }
  return map;
}

at::Tensor RecordedMap(const RecordingSink& sink, int64_t head, int64_t length) {
  return at::tensor(sink.heads.at({0, 0, head}), at::kDouble).view({length, length});
}

class AttentionTest : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(3); }

  at::Tensor Attend(const AttentionInputs& inputs, bool wants_logits = true) {
    ForwardPass pass(/*mixer_count=*/1, sink_, cancellation_, wants_logits);
    auto mixed = CausalAttention(inputs, /*mixer=*/0, pass);
    EXPECT_THAT(mixed, IsOk());
    return *mixed;
  }

  RecordingSink sink_;
  CancellationToken cancellation_;
};

TEST_F(AttentionTest, QueryHeadsThatShareKeysReadTheirOwnGroup) {
  const AttentionInputs inputs = RandomInputs(/*heads=*/6, /*shared=*/2, /*length=*/9, 4);

  Attend(inputs);

  for (int64_t head = 0; head < 6; ++head) {
    EXPECT_TRUE(
        at::allclose(RecordedMap(sink_, head, 9), PlainMap(inputs, head, head / 3), 1e-5, 1e-6));
  }
}

TEST_F(AttentionTest, TheCapturedOperatorAppliedToTheValuesIsTheOutput) {
  const int64_t length = 11;
  const AttentionInputs inputs = RandomInputs(/*heads=*/6, /*shared=*/3, length, 4);

  const at::Tensor mixed = Attend(inputs).view({length, 6, 4}).transpose(0, 1);  // [H, L, d]

  for (int64_t head = 0; head < 6; ++head) {
    const operators::DenseOperator op(RecordedMap(sink_, head, length).unsqueeze(0),
                                      operators::StateSize::Growing());
    const at::Tensor values = inputs.values[head / 2].to(at::kDouble).unsqueeze(0);
    EXPECT_TRUE(at::allclose(op.Apply(values)[0], mixed[head].to(at::kDouble), 1e-5, 1e-6));
  }
}

TEST_F(AttentionTest, ValuesMayBeWiderOrNarrowerThanKeys) {
  const int64_t length = 7;
  for (const int64_t value_dim : {3, 9}) {
    AttentionInputs inputs = RandomInputs(/*heads=*/4, /*shared=*/2, length, 5);
    inputs.values = at::randn({2, length, value_dim});

    const at::Tensor mixed = Attend(inputs).view({length, 4, value_dim});

    for (int64_t head = 0; head < 4; ++head) {
      const at::Tensor expected =
          PlainMap(inputs, head, head / 2).matmul(inputs.values[head / 2].to(at::kDouble));
      EXPECT_TRUE(at::allclose(mixed.select(1, head).to(at::kDouble), expected, 1e-5, 1e-6));
    }
  }
}

TEST_F(AttentionTest, HeadsWhoseMapsExceedTheLimitGoInGroups) {
  // Maps of 21 MB: three to a group, fewer than the four heads that share keys.
  const int64_t length = 2300;
  const AttentionInputs inputs = RandomInputs(/*heads=*/8, /*shared=*/2, length, 2);

  Attend(inputs);

  std::vector<int64_t> first_heads;
  for (const operators::OperatorKey& key : sink_.calls) first_heads.push_back(key.first_head);
  EXPECT_EQ(first_heads, (std::vector<int64_t>{0, 3, 4, 7}));
  const at::Tensor last_row = RecordedMap(sink_, 7, length)[length - 1];
  const at::Tensor scores =
      at::matmul(inputs.keys[1].to(at::kDouble), inputs.queries[7][length - 1].to(at::kDouble));
  EXPECT_TRUE(at::allclose(last_row, at::softmax(scores * inputs.scale, 0), 1e-4, 1e-7));
}

TEST_F(AttentionTest, HalfPrecisionInputsGiveMapsInFloat32) {
  AttentionInputs inputs = RandomInputs(/*heads=*/2, /*shared=*/2, /*length=*/7, 4);
  inputs.queries = inputs.queries.to(at::kBFloat16);
  inputs.keys = inputs.keys.to(at::kBFloat16);
  inputs.values = inputs.values.to(at::kBFloat16);

  const at::Tensor mixed = Attend(inputs);

  EXPECT_EQ(mixed.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(at::allclose(RecordedMap(sink_, 1, 7), PlainMap(inputs, 1, 1), 1e-5, 1e-6));
  EXPECT_EQ(sink_.feature_epsilons.front(), 0x1p-23);
}

TEST_F(AttentionTest, APositionSeesItsWindowOnly) {
  for (const int64_t window : {1, 4, 9, 30}) {
    AttentionInputs inputs = RandomInputs(/*heads=*/4, /*shared=*/2, /*length=*/9, 4);
    inputs.window = window;
    sink_ = {};

    const at::Tensor mixed = Attend(inputs).view({9, 4, 4});

    EXPECT_EQ(sink_.classes, (std::vector<std::string>{"BandedOperator"})) << window;
    for (int64_t head = 0; head < 4; ++head) {
      const at::Tensor map = PlainMap(inputs, head, head / 2);
      EXPECT_TRUE(at::allclose(RecordedMap(sink_, head, 9), map, 1e-5, 1e-6)) << window;
      const at::Tensor values = inputs.values[head / 2].to(at::kDouble);
      EXPECT_TRUE(
          at::allclose(mixed.select(1, head).to(at::kDouble), at::matmul(map, values), 1e-4, 1e-5))
          << window;
    }
  }
}

TEST_F(AttentionTest, ScoresAreCappedBeforeTheyAreMasked) {
  for (const int64_t window : {0, 3}) {
    AttentionInputs inputs = RandomInputs(/*heads=*/2, /*shared=*/1, /*length=*/8, 4);
    inputs.soft_cap = 0.8;
    inputs.window = window;
    sink_ = {};

    Attend(inputs);

    for (int64_t head = 0; head < 2; ++head) {
      EXPECT_TRUE(at::allclose(RecordedMap(sink_, head, 8), PlainMap(inputs, head, 0), 1e-5, 1e-6));
    }
  }
}

TEST_F(AttentionTest, WindowsAndLengthsMayChangeWithinAPass) {
  // The masks are kept from layer to layer.
  ForwardPass pass(/*mixer_count=*/1, sink_, cancellation_, /*wants_logits=*/true);
  for (const auto& [length, window] : {std::pair{9, 2}, {9, 0}, {9, 2}, {5, 2}, {5, 3}, {9, 2}}) {
    AttentionInputs inputs = RandomInputs(/*heads=*/1, /*shared=*/1, length, 4);
    inputs.window = window;
    sink_.heads.clear();
    ASSERT_THAT(CausalAttention(inputs, /*mixer=*/0, pass), IsOk());

    EXPECT_TRUE(at::allclose(RecordedMap(sink_, 0, length), PlainMap(inputs, 0, 0), 1e-5, 1e-6));
  }
}

TEST_F(AttentionTest, NothingIsMixedWhenThePassEndsAfterTheMaps) {
  const at::Tensor mixed = Attend(RandomInputs(2, 2, 5, 4), /*wants_logits=*/false);

  EXPECT_FALSE(mixed.defined());
  EXPECT_EQ(sink_.heads.size(), 2u);
}

}  // namespace
}  // namespace ess::models
