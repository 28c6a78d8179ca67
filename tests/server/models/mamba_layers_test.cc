// The scans and the convolution of the Mamba models against the operators' own recurrences, over
// lengths on both sides of a chunk.
#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "server/models/layers/causal_convolution.h"
#include "server/models/layers/selective_scan.h"
#include "server/operators/diagonal_recurrence.h"
#include "server/operators/selective_scan.h"
#include "tests/support/recording_sink.h"
#include "tests/support/status_matchers.h"

namespace ess::models {
namespace {

using absl::StatusCode;
using ess::testing::IsOk;
using ess::testing::RecordingSink;
using ess::testing::StatusIs;

constexpr int64_t kLengths[] = {1, 2, 63, 64, 65, 130};

class MambaLayersTest : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  RecordingSink sink_;
  CancellationToken cancellation_;
  ForwardPass pass_{/*mixer_count=*/1, sink_, cancellation_, /*wants_logits=*/true};
};

ScanInputs RandomScan(int64_t length, int64_t channels, int64_t states) {
  return {.x = at::randn({length, channels}),
          .delta = at::softplus(at::randn({length, channels})),
          .A = at::randn({channels, states}).exp_().neg_(),
          .B = at::randn({length, states}),
          .C = at::randn({length, states})};
}

TEST_F(MambaLayersTest, ASelectiveScanMixesWhatItsOperatorMixes) {
  for (const int64_t length : kLengths) {
    const ScanInputs scan = RandomScan(length, /*channels=*/5, /*states=*/3);

    const auto y = RunSelectiveScan(scan, pass_);

    ASSERT_THAT(y, IsOk());
    const operators::SelectiveScan op(scan.delta.t(), scan.A, scan.B, scan.C);
    const at::Tensor expected = op.Apply(scan.x.t().unsqueeze(2).to(at::kDouble)).squeeze(2).t();
    EXPECT_TRUE(at::allclose(y->to(at::kDouble), expected, 1e-4, 1e-5)) << length;
  }
}

TEST_F(MambaLayersTest, AHeadScanMixesWhatItsOperatorMixes) {
  constexpr int64_t kHeads = 4, kGroups = 2, kStates = 3, kDim = 5;
  for (const int64_t length : kLengths) {
    const HeadScanInputs scan = {.x = at::randn({length, kHeads, kDim}),
                                 .delta = at::softplus(at::randn({length, kHeads})),
                                 .A = at::randn({kHeads}).exp_().neg_(),
                                 .B = at::randn({length, kGroups, kStates}),
                                 .C = at::randn({length, kGroups, kStates})};

    const auto y = RunHeadScan(scan, pass_);

    ASSERT_THAT(y, IsOk());
    const at::Tensor gates = scan.delta.mul(scan.A).exp().t().unsqueeze(2);  // [H, L, 1]
    const auto of_heads = [&](const at::Tensor& groups) {                    // [H, L, N]
      return groups.transpose(0, 1).repeat_interleave(kHeads / kGroups, 0);
    };
    const operators::DiagonalRecurrence op(gates, of_heads(scan.B) * scan.delta.t().unsqueeze(2),
                                           of_heads(scan.C));
    const at::Tensor expected = op.Apply(scan.x.transpose(0, 1).to(at::kDouble)).transpose(0, 1);
    EXPECT_TRUE(at::allclose(y->to(at::kDouble), expected, 1e-4, 1e-5)) << length;
  }
}

TEST_F(MambaLayersTest, GatesThatUnderflowForgetEverything) {
  ScanInputs scan = RandomScan(/*length=*/80, /*channels=*/2, /*states=*/3);
  scan.delta.select(0, 70).fill_(1e4);
  const auto whole = RunSelectiveScan(scan, pass_);
  scan.x.narrow(0, 0, 70).zero_();

  const auto without_past = RunSelectiveScan(scan, pass_);

  ASSERT_THAT(whole, IsOk());
  ASSERT_THAT(without_past, IsOk());
  EXPECT_TRUE(at::equal(whole->narrow(0, 70, 10), without_past->narrow(0, 70, 10)));
}

TEST_F(MambaLayersTest, ChannelsBesideWholeVectorsAreScannedLikeTheOthers) {
  for (const int64_t channels : {1, 15, 16, 17, 48}) {
    const ScanInputs scan = RandomScan(/*length=*/70, channels, /*states=*/16);

    const auto y = RunSelectiveScan(scan, pass_);

    ASSERT_THAT(y, IsOk());
    for (const int64_t channel : {int64_t{0}, channels - 1}) {
      const auto one = [&](const at::Tensor& x) { return x.narrow(1, channel, 1); };
      const auto alone = RunSelectiveScan({.x = one(scan.x),
                                           .delta = one(scan.delta),
                                           .A = scan.A.narrow(0, channel, 1),
                                           .B = scan.B,
                                           .C = scan.C},
                                          pass_);
      ASSERT_THAT(alone, IsOk());
      EXPECT_TRUE(at::equal(one(*y), *alone)) << channel << " of " << channels;
    }
  }
}

TEST_F(MambaLayersTest, GatesAboveOneGrowUntilTheyOverflow) {
  ScanInputs scan = RandomScan(/*length=*/3, /*channels=*/2, /*states=*/1);
  scan.x.zero_();
  scan.x.select(0, 0).fill_(1);
  scan.delta.fill_(1);
  scan.A = at::tensor({3.0F, 80.0F}).view({2, 1});
  scan.B.fill_(1);
  scan.C.fill_(1);

  const auto y = RunSelectiveScan(scan, pass_);

  ASSERT_THAT(y, IsOk());
  EXPECT_TRUE(at::allclose(y->select(1, 0), at::tensor({0.0F, 3.0F, 6.0F}).exp(), 1e-5));
  EXPECT_TRUE(std::isinf((*y)[2][1].item<double>()));
}

TEST_F(MambaLayersTest, ARateThatIsNotANumberIsNotHidden) {
  ScanInputs scan = RandomScan(/*length=*/3, /*channels=*/2, /*states=*/3);
  scan.A[1][2] = std::numeric_limits<float>::quiet_NaN();

  const auto y = RunSelectiveScan(scan, pass_);

  ASSERT_THAT(y, IsOk());
  EXPECT_TRUE(at::isfinite(y->select(1, 0)).all().item<bool>());
  EXPECT_TRUE(at::isnan(y->select(1, 1)).all().item<bool>());
}

TEST_F(MambaLayersTest, ACancelledScanStops) {
  cancellation_.Cancel();

  EXPECT_THAT(RunSelectiveScan(RandomScan(10, 2, 3), pass_),
              StatusIs(StatusCode::kCancelled, ::testing::_));
}

TEST_F(MambaLayersTest, AConvolutionSeesTheTapsBeforeAPosition) {
  const CausalConvolution convolution = {.weight = at::randn({2, 1, 3}), .bias = at::randn({2})};
  const at::Tensor x = at::randn({6, 2});

  const at::Tensor y = convolution(x);

  for (int64_t t = 0; t < 6; ++t) {
    for (int64_t c = 0; c < 2; ++c) {
      at::Tensor expected = convolution.bias[c].clone();
      for (int64_t k = 0; k < 3; ++k) {
        if (t - 2 + k >= 0) expected += convolution.weight[c][0][k] * x[t - 2 + k][c];
      }
      EXPECT_NEAR(y[t][c].item<double>(), expected.item<double>(), 1e-5);
    }
  }
}

}  // namespace
}  // namespace ess::models
