// Selective scans through the engine: against the SVD of their dense forms, on one thread and two.
#include "server/ess/channel_ess.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "server/ess/ess_engine.h"
#include "server/ess/reference_ess.h"
#include "server/linalg/reference_linalg.h"
#include "server/operators/selective_scan.h"
#include "tests/support/operator_forms.h"
#include "tests/support/status_matchers.h"

namespace ess {
namespace {

using ::ess::operators::SelectiveScan;
using ::ess::testing::DenseForm;
using ::ess::testing::IsOk;
using ::ess::testing::RandomTensor;
using Kind = Measure::Kind;

const CancellationToken kNever;
constexpr int64_t kStates = 16;

std::vector<int64_t> Range(int64_t count) {
  std::vector<int64_t> range(count);
  std::iota(range.begin(), range.end(), 0);
  return range;
}

// A Mamba layer with resets and a silent channel. `scale` times its operator.
SelectiveScan MakeLayer(int64_t channels, int64_t length, double scale = 1) {
  at::Tensor delta = at::softplus(RandomTensor({channels, length}, 1) - 3);
  delta.select(1, length / 3).fill_(20);
  delta.select(1, length / 2).fill_(1e3);
  delta.select(0, channels / 2).zero_();
  const at::Tensor A = -at::arange(1, kStates + 1, at::kDouble).expand({channels, kStates});
  return SelectiveScan(delta, A, RandomTensor({length, kStates}, 2) * scale,
                       RandomTensor({length, kStates}, 3));
}

OperatorEss ComputeAll(const SelectiveScan& scan, const std::vector<Measure>& measures,
                       int threads = 1, const EssOptions& options = {}) {
  WorkerPool pool(threads);
  auto ess = EssEngine(pool).Compute(scan, Range(scan.head_count()), Range(scan.length()), measures,
                                     options, kNever);
  EXPECT_THAT(ess, IsOk());
  return ess.ok() ? *std::move(ess) : OperatorEss();
}

double LargestNorm(const std::vector<double>& matrix, int64_t length) {
  double largest = 0;
  for (int64_t i = 1; i < length; ++i) {
    const auto sigma = linalg::BlockSingularValues(matrix, length, i);
    EXPECT_THAT(sigma, IsOk());
    largest = std::max(largest, sigma->front());
  }
  return largest;
}

void ChooseTargets(int64_t targets) {
  hwy::SetSupportedTargetsForTest(targets);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

TEST(ChannelEssTest, CountsAndNoiseFloorsEqualTheReferenceAtEveryScaleOnEveryInstructionSet) {
  constexpr int64_t kChannels = 10;
  constexpr int64_t kLength = 68;
  for (const double scale : {1.0, 1e150, 1e-150}) {
    SCOPED_TRACE(scale);
    const SelectiveScan scan = MakeLayer(kChannels, kLength, scale);
    const std::vector<Measure> measures = {{.kind = Kind::kTolerance, .value = 1e-1 * scale},
                                           {.kind = Kind::kTolerance, .value = 1e-4 * scale}};
    std::vector<std::vector<std::vector<float>>> expected;
    std::vector<double> norms;
    for (int64_t head = 0; head < kChannels; ++head) {
      const std::vector<double> matrix = DenseForm(scan, head);
      auto counts = ReferenceEss(matrix, kLength, Range(kLength), measures, kNever);
      ASSERT_THAT(counts, IsOk());
      expected.push_back(*std::move(counts));
      norms.push_back(LargestNorm(matrix, kLength));
    }
    for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
      SCOPED_TRACE(hwy::TargetName(target));
      ChooseTargets(target);
      const OperatorEss ess = ComputeAll(scan, measures);
      ChooseTargets(0);
      for (int64_t head = 0; head < kChannels; ++head) {
        for (size_t m = 0; m < measures.size(); ++m) {
          const float* values = ess.values[m].data() + head * kLength;
          EXPECT_EQ(std::vector<float>(values, values + kLength), expected[head][m]) << head;
        }
        const double floor = 0x1p-52 * norms[head] * std::sqrt(kLength);
        EXPECT_NEAR(ess.noise_floors[head], floor, 1e-3 * floor) << head;
      }
    }
  }
}

TEST(ChannelEssTest, CountsOfALongScanEqualTheReference) {
  constexpr int64_t kLength = 301;
  const SelectiveScan scan = MakeLayer(3, kLength);
  const std::vector<Measure> measures = {{.kind = Kind::kTolerance, .value = 1e-3},
                                         {.kind = Kind::kHeadRelative, .value = 1e-4}};
  const OperatorEss ess = ComputeAll(scan, measures);
  const std::vector<double> matrix = DenseForm(scan, 0);
  const double norm = LargestNorm(matrix, kLength);
  for (int64_t i = 1; i < kLength; i += 13) {
    const auto sigma = linalg::BlockSingularValues(matrix, kLength, i);
    ASSERT_THAT(sigma, IsOk());
    EXPECT_EQ(ess.values[0][i], CountAbove(*sigma, 1e-3)) << i;
    EXPECT_EQ(ess.values[1][i], CountAbove(*sigma, 1e-4 * norm)) << i;
  }
  for (int64_t i = 0; i < kLength; ++i) EXPECT_EQ(ess.values[0][kLength + i], 0);  // Silent.
}

TEST(ChannelEssTest, NormsFoundOnTheWayAreThoseFoundBefore) {
  // A measure relative to the head's norm makes the engine look for it in a pass of its own.
  const SelectiveScan scan = MakeLayer(11, 130);
  const Measure tolerance = {.kind = Kind::kTolerance, .value = 1e-3};
  const OperatorEss alone = ComputeAll(scan, {tolerance});
  const OperatorEss with_fraction =
      ComputeAll(scan, {tolerance, {.kind = Kind::kHeadRelative, .value = 1e-2}});
  const OperatorEss with_entropy = ComputeAll(scan, {tolerance, {.kind = Kind::kEntropy}});
  const OperatorEss certified = ComputeAll(scan, {tolerance}, 1, {.certify = true});

  for (const OperatorEss* other : {&with_fraction, &with_entropy, &certified}) {
    EXPECT_EQ(alone.values[0], other->values[0]);
    for (size_t head = 0; head < alone.noise_floors.size(); ++head) {
      const double floor = alone.noise_floors[head];
      EXPECT_NEAR(other->noise_floors[head], floor, 1e-3 * floor);
    }
  }
}

TEST(ChannelEssTest, RepeatedRunsAndTwoThreadsGiveTheSameBits) {
  const SelectiveScan scan = MakeLayer(37, 260);
  const std::vector<Measure> measures = {{.kind = Kind::kTolerance, .value = 1e-3},
                                         {.kind = Kind::kRelative, .value = 1e-2},
                                         {.kind = Kind::kHeadRelative, .value = 1e-5},
                                         {.kind = Kind::kEntropy},
                                         {.kind = Kind::kSpectralNorm},
                                         {.kind = Kind::kFrobeniusNorm},
                                         {.kind = Kind::kCausal}};
  const std::vector<Measure> one = {measures.front()};
  for (const std::vector<Measure>& asked : {measures, one}) {
    const OperatorEss expected = ComputeAll(scan, asked);
    for (const int threads : {1, 2}) {
      const OperatorEss ess = ComputeAll(scan, asked, threads);
      EXPECT_EQ(ess.values, expected.values);
      EXPECT_EQ(ess.noise_floors, expected.noise_floors);
      EXPECT_EQ(ess.routes, expected.routes);
    }
  }
}

TEST(ChannelEssTest, ALayerStreamsThroughLittleScratch) {
  // 1536 channels of 1024 positions: the gates alone would be 192 MiB.
  constexpr int64_t kMostBytes = int64_t{64} << 20;
  constexpr int64_t kChannels = 1536;
  constexpr int64_t kLength = 1024;
  const SelectiveScan scan = MakeLayer(kChannels, kLength);
  const std::vector<Measure> measures = {{.kind = Kind::kTolerance, .value = 1e-3}};
  const std::vector<int64_t> positions = Range(kLength);
  linalg::ChannelSpectra spectra;
  int64_t largest = 0;
  for (int64_t first = 0; first < kChannels; first += spectra.lanes()) {
    const int64_t count = std::min(spectra.lanes(), kChannels - first);
    std::vector<int64_t> heads = Range(count);
    for (int64_t& head : heads) head += first;
    const auto ess = ComputeChannels(scan, heads, positions, measures, {}, spectra, kNever);
    ASSERT_THAT(ess, IsOk());
    ASSERT_EQ(static_cast<int64_t>(ess->size()), count);
    largest = std::max(largest, spectra.memory_bytes());
  }
  EXPECT_LE(largest, kMostBytes);
  // The factors of a group's windows at least: what is kept is counted.
  EXPECT_GE(largest, kLength / 8 * kStates * kStates * spectra.lanes() * 8);
}

}  // namespace
}  // namespace ess
