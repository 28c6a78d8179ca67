#include "tests/benchmarks/operator_cases.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <utility>

#include "server/linalg/channel_spectra.h"
#include "server/operators/banded_operator.h"
#include "server/operators/convolution.h"
#include "server/operators/delta_recurrence.h"
#include "server/operators/dense_operator.h"
#include "server/operators/diagonal_recurrence.h"
#include "server/operators/selective_scan.h"
#include "tests/support/test_operators.h"

namespace ess::benchmarks {
namespace {

using operators::SequenceOperator;
using OperatorPointer = std::unique_ptr<SequenceOperator>;

constexpr double kNorm = 10;
constexpr int64_t kHeads = 2;
constexpr int64_t kWindow = 128;
constexpr int64_t kScanStates = 16;

class Random {
 public:
  explicit Random(uint64_t seed) : generator_(at::detail::createCPUGenerator(seed)) {}
  at::Tensor Normal(at::IntArrayRef shape) {
    return at::empty(shape, at::kDouble).normal_(0, 1, generator_);
  }
  at::Tensor Uniform(at::IntArrayRef shape) {
    return at::empty(shape, at::kDouble).uniform_(0, 1, generator_);
  }

 private:
  at::Generator generator_;
};

// max_i ||H_i||_F of head 0: from one position to the next, a column comes in and a row goes.
double LargestNorm(const SequenceOperator& op) {
  const int64_t length = op.length();
  const std::vector<double> matrix = DenseMatrix(op, 0);
  double square = 0;
  double largest = 0;
  for (int64_t i = 0; i + 1 < length; ++i) {
    for (int64_t row = i + 1; row < length; ++row) square += std::pow(matrix[row * length + i], 2);
    for (int64_t column = 0; column < i; ++column) {
      square -= std::pow(matrix[i * length + column], 2);
    }
    largest = std::max(largest, square);
  }
  return std::sqrt(largest);
}

// `make` multiplies the outputs by its argument.
OperatorPointer Scaled(const std::function<OperatorPointer(double)>& make) {
  return make(kNorm / LargestNorm(*make(1)));
}

// Steps of a Mamba layer: about 0.01 to 0.1.
at::Tensor Steps(Random& random, at::IntArrayRef shape) {
  return at::softplus(random.Normal(shape) - 4);
}

OperatorPointer GatedLinearAttention(int64_t L, int64_t N) {
  Random random(N);
  const at::Tensor gates = at::sigmoid(random.Normal({kHeads, L, N})).pow(1.0 / 16);
  const at::Tensor keys = random.Normal({kHeads, L, N});
  const at::Tensor queries = random.Normal({kHeads, L, N});
  return Scaled([&](double scale) {
    return std::make_unique<operators::DiagonalRecurrence>(gates, keys, queries * scale);
  });
}

OperatorPointer Mamba2(int64_t L, int64_t N) {
  Random random(2 * N);
  const at::Tensor steps = Steps(random, {kHeads, L, 1});
  const at::Tensor B = random.Normal({L, N});
  const at::Tensor C = random.Normal({L, N});
  return Scaled([&](double scale) {
    return std::make_unique<operators::DiagonalRecurrence>(at::exp(-4 * steps), steps * B,
                                                           C * scale);
  });
}

OperatorPointer DeltaNet(int64_t L, int64_t N) {
  Random random(4);
  const at::Tensor alpha = at::ones({L}, at::kDouble);
  const at::Tensor beta = at::sigmoid(random.Normal({kHeads, L}));
  const at::Tensor directions = random.Normal({kHeads, L, N});
  const at::Tensor keys = directions / directions.norm(2, {-1}, true);
  const at::Tensor queries = random.Normal({kHeads, L, N});
  return Scaled([&](double scale) {
    return std::make_unique<operators::DeltaRecurrence>(alpha, beta, keys, queries * scale);
  });
}

// 64 damped sinusoids per head.
OperatorPointer Hyena(int64_t L) {
  constexpr int64_t kWaves = 64;
  Random random(5);
  const at::Tensor amplitude = random.Normal({kHeads, kWaves, 1});
  const at::Tensor frequency = 3.1 * random.Uniform({kHeads, kWaves, 1});
  const at::Tensor damping = at::pow(10.0, 2.5 * random.Uniform({kHeads, kWaves, 1}) - 3);
  const at::Tensor phase = 6.28 * random.Uniform({kHeads, kWaves, 1});
  const at::Tensor t = at::arange(L, at::kDouble);
  const at::Tensor taps =
      (amplitude * at::exp(-damping * t) * at::cos(frequency * t + phase)).sum(1);
  return Scaled(
      [&](double scale) { return std::make_unique<operators::Convolution>(taps * scale); });
}

// Softmax of 2 q k / sqrt(16) over the window.
OperatorPointer SlidingWindow(int64_t L) {
  constexpr int64_t kDim = 16;
  Random random(6);
  const at::Tensor queries = random.Normal({kHeads, L, 1, kDim});
  const at::Tensor keys =
      at::constant_pad_nd(random.Normal({kHeads, L, kDim}), {0, 0, kWindow - 1, 0});
  // [H, L, 1, D] @ [H, L, D, W] => [H, L, W], the oldest key first.
  at::Tensor logits = at::matmul(queries, keys.unfold(1, kWindow, 1)).squeeze(2) * 0.5;
  logits = logits.flip(-1);
  const at::Tensor before_start =
      at::arange(kWindow).view({1, kWindow}) > at::arange(L).view({L, 1});
  logits.masked_fill_(before_start, -std::numeric_limits<double>::infinity());
  return std::make_unique<operators::BandedOperator>(at::softmax(logits, -1));
}

OperatorCase OneHead(OperatorPointer op) { return {.op = std::move(op)}; }

OperatorCase OneGroup(int64_t length) {
  const int64_t lanes = linalg::ChannelSpectra().lanes();
  return {.op = MakeSelectiveScan(length, kHeads * lanes),
          .one_thread_heads = lanes,
          .two_thread_heads = kHeads * lanes};
}

OperatorPointer RandomAttention(int64_t L) {
  const at::Tensor map =
      at::tensor(testing::MakeTestOperator("attention_g1", L), at::kDouble).view({1, L, L});
  return std::make_unique<operators::DenseOperator>(map.expand({kHeads, L, L}),
                                                    operators::StateSize::Growing());
}

}  // namespace

std::vector<OperatorFamily> OperatorFamilies() {
  return {
      {"random attention", 0,
       [](int64_t L) { return OperatorCase{.op = RandomAttention(L), .thorough = true}; }},
      {"GLA n=64", 64, [](int64_t L) { return OneHead(GatedLinearAttention(L, 64)); }},
      {"GLA n=128", 128, [](int64_t L) { return OneHead(GatedLinearAttention(L, 128)); }},
      {"Mamba-2 n=128", 128, [](int64_t L) { return OneHead(Mamba2(L, 128)); }},
      {"S6 n=16", kScanStates, OneGroup},
      {"DeltaNet n=64", 64, [](int64_t L) { return OneHead(DeltaNet(L, 64)); }},
      {"Hyena filter", 0, [](int64_t L) { return OneHead(Hyena(L)); }},
      {"window W=128", kWindow, [](int64_t L) { return OneHead(SlidingWindow(L)); }},
  };
}

OperatorCase MakeOperatorCase(std::string_view name, int64_t length) {
  for (const OperatorFamily& family : OperatorFamilies()) {
    if (family.name == name) return family.make(length);
  }
  std::abort();  // The benchmark names a family that does not exist.
}

OperatorPointer MakeSelectiveScan(int64_t length, int64_t channels) {
  Random random(3);
  const at::Tensor steps = Steps(random, {channels, length});
  const at::Tensor rates = -at::arange(1, kScanStates + 1, at::kDouble);
  const at::Tensor B = random.Normal({length, kScanStates});
  const at::Tensor C = random.Normal({length, kScanStates});
  return Scaled([&](double scale) {
    return std::make_unique<operators::SelectiveScan>(steps, rates, B, C * scale);
  });
}

std::vector<double> DenseMatrix(const SequenceOperator& op, int64_t head) {
  std::vector<double> matrix(op.length() * op.length());
  op.DenseHead(head, matrix);
  return matrix;
}

OperatorPointer DenseFromMatrix(const std::vector<double>& matrix, int64_t length, int64_t heads) {
  const at::Tensor map =
      at::from_blob(const_cast<double*>(matrix.data()), {1, length, length}, at::kDouble);
  return std::make_unique<operators::DenseOperator>(map.expand({heads, length, length}),
                                                    operators::StateSize::Growing());
}

}  // namespace ess::benchmarks
