// Against plain loops with the standard library's exponential, on every instruction set.
#include "server/linalg/channel_scan.h"

#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "server/linalg/channel_kernels.h"

namespace ess::linalg {
namespace {

constexpr int64_t kLength = 20;

// Arguments of up to 9 channels, with inputs and outputs that all share or that each has its own.
struct Scan {
  Scan(int64_t states, bool shared, uint64_t seed) : states(states) {
    std::mt19937_64 generator(seed);
    std::normal_distribution<double> normal;
    const auto fill = [&](std::vector<double>& numbers, int64_t count) {
      numbers.resize(count);
      for (double& x : numbers) x = normal(generator);
    };
    fill(steps, kChannels * kLength);
    fill(rates, kChannels * states);
    fill(inputs, kChannels * kLength * states);
    fill(outputs, kChannels * kLength * states);
    for (double& step : steps) step = std::abs(step);
    steps[3] = 1e3;  // Far below and above the range of quick exponentials.
    steps[4] = 0;
    for (int64_t d = 0; d < kChannels; ++d) {
      const int64_t own = (shared ? 0 : d) * kLength * states;
      channels.push_back({.steps = steps.data() + d * kLength,
                          .rates = rates.data() + d * states,
                          .inputs = inputs.data() + own,
                          .outputs = outputs.data() + own});
    }
  }

  static constexpr int64_t kChannels = 9;
  int64_t states;
  std::vector<double> steps, rates, inputs, outputs;
  std::vector<ScanChannel> channels;
};

class ChannelScanTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { Choose(GetParam()); }
  void TearDown() override { Choose(0); }

 private:
  static void Choose(int64_t targets) {
    hwy::SetSupportedTargetsForTest(targets);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

TEST_P(ChannelScanTest, GatesInputsAndOutputsEqualTheirDefinition) {
  for (const bool shared : {true, false}) {
    for (const int64_t states : {1, 3, 16, 32, 40}) {
      const Scan scan(states, shared, states);
      for (const int64_t lanes : {BestChannelKernels().lanes, int64_t{1}, int64_t{3}}) {
        for (int64_t known = 0; known <= std::min(lanes, Scan::kChannels); ++known) {
          constexpr int64_t kFirst = 2;
          constexpr int64_t kCount = 5;
          std::vector<double> a(kCount * states * lanes, NAN), b = a, c = a;
          const std::span<const ScanChannel> channels(scan.channels.data(), known);

          WriteScanLanes(channels, states, lanes, kFirst, kCount, a.data(), b.data(), c.data());

          for (int64_t t = 0; t < kCount; ++t) {
            for (int64_t n = 0; n < states; ++n) {
              for (int64_t lane = 0; lane < lanes; ++lane) {
                const int64_t entry = (t * states + n) * lanes + lane;
                const bool present = lane < known;
                const ScanChannel& channel = scan.channels[present ? lane : 0];
                const int64_t source = (kFirst + t) * states + n;
                const double step = present ? channel.steps[kFirst + t] : 0;
                const double exponent = step * channel.rates[n];
                const double gate = std::exp(exponent);
                if (std::isinf(gate)) {
                  EXPECT_EQ(a[entry], gate);
                } else {
                  EXPECT_NEAR(a[entry], gate,
                              (2 + std::abs(exponent)) * 0x1p-52 * gate + 0x1p-1074);
                }
                EXPECT_EQ(b[entry], step * channel.inputs[source]);
                EXPECT_EQ(c[entry], present ? channel.outputs[source] : 0);
              }
            }
          }
        }
      }
    }
  }
}

TEST_P(ChannelScanTest, AChannelsBitsDoNotDependOnItsLaneOrOnTheNumberOfLanes) {
  const Scan scan(16, /*shared=*/true, 5);
  const int64_t lanes = BestChannelKernels().lanes;
  const int64_t entries = kLength * scan.states;
  std::vector<double> a(entries * lanes), b(a.size()), c(a.size());
  const std::span<const ScanChannel> channels(scan.channels.data(), lanes);
  WriteScanLanes(channels, scan.states, lanes, 0, kLength, a.data(), b.data(), c.data());
  for (int64_t lane = 0; lane < lanes; ++lane) {
    std::vector<double> a1(entries), b1(entries), c1(entries);
    WriteScanLanes(channels.subspan(lane, 1), scan.states, 1, 0, kLength, a1.data(), b1.data(),
                   c1.data());
    for (int64_t entry = 0; entry < entries; ++entry) {
      EXPECT_EQ(a[entry * lanes + lane], a1[entry]);
      EXPECT_EQ(b[entry * lanes + lane], b1[entry]);
      EXPECT_EQ(c[entry * lanes + lane], c1[entry]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, ChannelScanTest,
                         ::testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& info) { return std::string(hwy::TargetName(info.param)); });

}  // namespace
}  // namespace ess::linalg
