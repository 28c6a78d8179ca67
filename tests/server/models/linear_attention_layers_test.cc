// The scans of linear-attention heads against the operators that they hand over, over lengths on
// both sides of a chunk.
#include <ATen/ATen.h>

#include <vector>

#include "gtest/gtest.h"
#include "server/models/layers/delta_scan.h"
#include "server/models/layers/gated_scan.h"
#include "server/models/layers/head_scan.h"
#include "server/models/layers/rank_one_scan.h"
#include "server/models/layers/token_shift.h"
#include "server/models/layers/unit_norm.h"
#include "tests/support/recording_sink.h"
#include "tests/support/status_matchers.h"

namespace ess::models {
namespace {

using absl::StatusCode;
using ess::testing::IsOk;
using ess::testing::RecordingSink;
using ess::testing::StatusIs;

constexpr int64_t kLengths[] = {1, 2, 15, 16, 17, 63, 64, 65, 130};
constexpr int64_t kHeads = 4, kGroups = 2, kStates = 3, kDim = 5;

class LinearAttentionLayersTest : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  // T of every head, as it was handed over, times values [L, G, d] => [L, H, d].
  at::Tensor Mixed(const at::Tensor& values) const {
    const int64_t length = values.size(0);
    at::Tensor mixed = at::empty({length, kHeads, values.size(2)}, at::kDouble);
    for (int64_t head = 0; head < kHeads; ++head) {
      const std::vector<double>& dense = sink_.heads.at({0, 0, head});
      const at::Tensor T = at::tensor(dense, at::kDouble).view({length, length});
      const int64_t group = head * values.size(1) / kHeads;
      mixed.select(1, head).copy_(at::mm(T, values.select(1, group).to(at::kDouble)));
    }
    return mixed;
  }

  void ExpectMixesItsOperators(const absl::StatusOr<at::Tensor>& y, const at::Tensor& values) {
    ASSERT_THAT(y, IsOk());
    EXPECT_TRUE(at::allclose(y->to(at::kDouble), Mixed(values), 1e-4, 1e-5)) << values.size(0);
  }

  RecordingSink sink_;
  CancellationToken cancellation_;
  ForwardPass pass_{/*mixer_count=*/1, sink_, cancellation_, /*wants_logits=*/true};
};

// Decays from none to almost all.
at::Tensor RandomLogGates(at::IntArrayRef shape) { return at::randn(shape).mul(2).exp().neg(); }

GatedScanInputs RandomGatedScan(int64_t length, int64_t gates) {
  return {.head_count = kHeads,
          .queries = at::randn({length, kHeads, kStates}),
          .keys = at::randn({length, kGroups, kStates}),
          .values = at::randn({length, kGroups, kDim}),
          .log_gates = RandomLogGates({length, kGroups, gates})};
}

TEST_F(LinearAttentionLayersTest, AGatedScanMixesWhatItsOperatorMixes) {
  for (const int64_t length : kLengths) {
    for (const int64_t gates : {int64_t{1}, kStates}) {
      for (const bool read_before : {false, true}) {
        GatedScanInputs scan = RandomGatedScan(length, gates);
        scan.read_before = read_before;

        const auto y = GatedScan(scan, /*mixer=*/0, pass_);

        ExpectMixesItsOperators(y, scan.values);
      }
    }
  }
}

TEST_F(LinearAttentionLayersTest, ADeltaScanMixesWhatItsOperatorMixes) {
  for (const int64_t length : kLengths) {
    const DeltaScanInputs scan = {.head_count = kHeads,
                                  .queries = at::randn({length, kGroups, kStates}),
                                  .keys = UnitLength(at::randn({length, kGroups, kStates})),
                                  .values = at::randn({length, kHeads, kDim}),
                                  .beta = at::rand({length, kHeads, 1}).mul(2),
                                  .log_alpha = RandomLogGates({length, kHeads, 1})};

    const auto y = DeltaScan(scan, /*mixer=*/0, pass_);

    ExpectMixesItsOperators(y, scan.values);
  }
}

TEST_F(LinearAttentionLayersTest, ARankOneScanMixesWhatItsOperatorMixes) {
  for (const int64_t length : kLengths) {
    const at::Tensor removed = UnitLength(at::randn({length, kHeads, kStates}));
    const RankOneScanInputs scan = {
        .receptances = at::randn({length, kHeads, kStates}),
        .log_decays = RandomLogGates({length, kHeads, kStates}).clamp_min(-0.6),
        .to = removed.mul(at::rand({length, kHeads, kStates})),
        .from = removed.neg(),
        .keys = at::randn({length, kHeads, kStates}),
        .values = at::randn({length, kHeads, kDim})};

    const auto y = RankOneScan(scan, /*mixer=*/0, pass_);

    ExpectMixesItsOperators(y, scan.values);
  }
}

TEST_F(LinearAttentionLayersTest, GatesThatUnderflowForgetEverything) {
  for (const int64_t gates : {int64_t{1}, kStates}) {
    GatedScanInputs scan = RandomGatedScan(/*length=*/80, gates);
    scan.log_gates.select(0, 70).fill_(-1e30);
    const auto whole = GatedScan(scan, /*mixer=*/0, pass_);
    scan.values.narrow(0, 0, 70).zero_();

    const auto without_past = GatedScan(scan, /*mixer=*/0, pass_);

    ASSERT_THAT(whole, IsOk());
    ASSERT_THAT(without_past, IsOk());
    EXPECT_TRUE(at::equal(whole->narrow(0, 70, 10), without_past->narrow(0, 70, 10)));
  }
}

TEST_F(LinearAttentionLayersTest, ACancelledScanStops) {
  cancellation_.Cancel();

  EXPECT_THAT(GatedScan(RandomGatedScan(10, 1), /*mixer=*/0, pass_),
              StatusIs(StatusCode::kCancelled, ::testing::_));
}

TEST_F(LinearAttentionLayersTest, HeadsComeInGroupsOfBoundedSize) {
  std::vector<std::pair<int64_t, int64_t>> groups;
  const auto status = ForHeadGroups(/*head_count=*/5, /*numbers_per_head=*/int64_t{4} << 20, pass_,
                                    [&](int64_t first, int64_t count) {
                                      groups.emplace_back(first, count);
                                      return absl::OkStatus();
                                    });

  EXPECT_THAT(status, IsOk());
  EXPECT_EQ(groups, (std::vector<std::pair<int64_t, int64_t>>{{0, 2}, {2, 2}, {4, 1}}));
}

TEST_F(LinearAttentionLayersTest, ATokenShiftIsTheStepBackToThePositionBefore) {
  const at::Tensor x = at::tensor({1.0, 4.0, 9.0}).view({3, 1});

  EXPECT_TRUE(at::equal(TokenShift(x), at::tensor({-1.0, -3.0, -5.0}).view({3, 1})));
}

TEST_F(LinearAttentionLayersTest, NormsWithoutWeightsGiveUnitLengthsAndSums) {
  const at::Tensor x = at::tensor({3.0f, -4.0f}).view({1, 2});

  EXPECT_TRUE(at::allclose(UnitLength(x), at::tensor({0.6f, -0.8f}).view({1, 2})));
  EXPECT_TRUE(at::allclose(UnitAbsoluteSum(x), at::tensor({3 / 7.0f, -4 / 7.0f}).view({1, 2})));
}

}  // namespace
}  // namespace ess::models
