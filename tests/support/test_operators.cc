#include "tests/support/test_operators.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>

namespace ess::testing {
namespace {

constexpr int64_t kHeadDim = 64;

class Normal {
 public:
  explicit Normal(uint64_t seed) : generator_(seed) {}
  double operator()() { return distribution_(generator_); }
  std::vector<double> Matrix(int64_t rows, int64_t columns, double scale = 1) {
    std::vector<double> matrix(rows * columns);
    for (double& entry : matrix) entry = scale * (*this)();
    return matrix;
  }
  double Uniform() { return std::uniform_real_distribution<double>()(generator_); }

 private:
  std::mt19937_64 generator_;
  std::normal_distribution<double> distribution_;
};

double Dot(const double* x, const double* y, int64_t count) {
  double sum = 0;
  for (int64_t n = 0; n < count; ++n) sum += x[n] * y[n];
  return sum;
}

// Row-wise softmax over the past of gain * q k^T / sqrt(d), `sink_bias` added to column 0.
std::vector<double> Softmax(const std::vector<double>& q, const std::vector<double>& k, int64_t L,
                            double gain, double sink_bias) {
  std::vector<double> T(L * L, 0.0);
  for (int64_t i = 0; i < L; ++i) {
    double* row = T.data() + i * L;
    for (int64_t j = 0; j <= i; ++j) {
      row[j] = gain * Dot(&q[i * kHeadDim], &k[j * kHeadDim], kHeadDim) / std::sqrt(kHeadDim);
    }
    row[0] += sink_bias;
    const double largest = *std::max_element(row, row + i + 1);
    double sum = 0;
    for (int64_t j = 0; j <= i; ++j) sum += row[j] = std::exp(row[j] - largest);
    for (int64_t j = 0; j <= i; ++j) row[j] /= sum;
  }
  return T;
}

void RotateByPosition(std::vector<double>& x, int64_t L) {
  for (int64_t i = 0; i < L; ++i) {
    for (int64_t pair = 0; pair < kHeadDim / 2; ++pair) {
      const double angle = i * std::pow(1e4, -2.0 * pair / kHeadDim);
      double& a = x[i * kHeadDim + 2 * pair];
      double& b = x[i * kHeadDim + 2 * pair + 1];
      const double turned = a * std::cos(angle) - b * std::sin(angle);
      b = a * std::sin(angle) + b * std::cos(angle);
      a = turned;
    }
  }
}

std::vector<double> Attention(int64_t L, double gain, bool sink, uint64_t seed) {
  Normal normal(seed);
  std::vector<double> q = normal.Matrix(L, kHeadDim);
  std::vector<double> k = normal.Matrix(L, kHeadDim);
  if (sink) {
    const std::vector<double> mean = normal.Matrix(1, kHeadDim, 0.5);
    for (int64_t x = 0; x < L * kHeadDim; ++x) {
      q[x] += mean[x % kHeadDim];
      k[x] += mean[x % kHeadDim];
    }
  }
  RotateByPosition(q, L);
  RotateByPosition(k, L);
  return Softmax(q, k, L, gain, sink ? 4 : 0);
}

// Content of 8 dimensions; a query looks for what came before its own content.
std::vector<double> TopicAttention(int64_t L) {
  constexpr int64_t kContent = 8;
  Normal normal(11);
  const std::vector<double> content = normal.Matrix(L, kContent);
  const std::vector<double> project = normal.Matrix(kHeadDim, kContent, 1 / std::sqrt(kContent));
  const std::vector<double> mean = normal.Matrix(1, kHeadDim);
  std::vector<double> q(L * kHeadDim);
  std::vector<double> k(L * kHeadDim);
  for (int64_t i = 0; i < L; ++i) {
    for (int64_t e = 0; e < kHeadDim; ++e) {
      const double* row = &project[e * kContent];
      q[i * kHeadDim + e] = Dot(&content[i * kContent], row, kContent) + 0.3 * mean[e];
      k[i * kHeadDim + e] = i == 0 ? 3 * mean[e] : Dot(&content[(i - 1) * kContent], row, kContent);
    }
  }
  return Softmax(q, k, L, 4, 0);
}

// T[i, j] = sum_n c[i, n] exp(log_gate[i, n] + ... + log_gate[j + 1, n]) b[j, n], post-read.
std::vector<double> Recurrence(const std::vector<double>& log_gate, const std::vector<double>& b,
                               const std::vector<double>& c, int64_t L, int64_t N) {
  std::vector<double> T(L * L, 0.0);
  for (int64_t j = 0; j < L; ++j) {
    std::vector<double> state(b.begin() + j * N, b.begin() + (j + 1) * N);
    for (int64_t i = j; i < L; ++i) {
      for (int64_t n = 0; n < N && i > j; ++n) state[n] *= std::exp(log_gate[i * N + n]);
      T[i * L + j] = Dot(state.data(), &c[i * N], N);
    }
  }
  return T;
}

// Gates sigmoid(spread * normal)^power: a large spread makes them 0 or 1.
std::vector<double> GatedLinearAttention(int64_t L, int64_t N, double spread, double power,
                                         uint64_t seed) {
  Normal normal(seed);
  const std::vector<double> c = normal.Matrix(L, N, 1 / std::sqrt(N));
  const std::vector<double> b = normal.Matrix(L, N);
  std::vector<double> log_gate(L * N);
  for (double& gate : log_gate) gate = -power * std::log1p(std::exp(-spread * normal()));
  return Recurrence(log_gate, b, c, L, N);
}

std::vector<double> SelectiveScan(int64_t L) {
  constexpr int64_t kState = 16;
  Normal normal(13);
  std::vector<double> b = normal.Matrix(L, kState);
  const std::vector<double> c = normal.Matrix(L, kState);
  std::vector<double> log_gate(L * kState);
  for (int64_t i = 0; i < L; ++i) {
    const double step = std::log1p(std::exp(normal() - 4));
    for (int64_t n = 0; n < kState; ++n) {
      b[i * kState + n] *= step;
      log_gate[i * kState + n] = -(n + 1) * step;
    }
  }
  return Recurrence(log_gate, b, c, L, kState);
}

// A long convolution of 64 damped sinusoids.
std::vector<double> Hyena(int64_t L) {
  Normal normal(4);
  std::vector<double> taps(L, 0.0);
  for (int wave = 0; wave < 64; ++wave) {
    const double amplitude = normal();
    const double frequency = 3.1 * normal.Uniform();
    const double damping = std::pow(10.0, -3 + 2.5 * normal.Uniform());
    const double phase = 6.28 * normal.Uniform();
    for (int64_t t = 0; t < L; ++t) {
      taps[t] += amplitude * std::exp(-damping * t) * std::cos(frequency * t + phase);
    }
  }
  std::vector<double> T(L * L, 0.0);
  for (int64_t i = 0; i < L; ++i) {
    for (int64_t j = 0; j <= i; ++j) T[i * L + j] = taps[i - j];
  }
  return T;
}

// T[i, weight_column(i)] = 1 where that column exists.
std::vector<double> OneHot(int64_t L, const std::function<int64_t(int64_t)>& column_of) {
  std::vector<double> T(L * L, 0.0);
  for (int64_t i = 0; i < L; ++i) {
    const int64_t column = column_of(i);
    if (column >= 0) T[i * L + column] = 1;
  }
  return T;
}

std::vector<double> HardAttention(int64_t L) {
  std::mt19937_64 generator(5);
  return OneHot(L, [&](int64_t i) { return static_cast<int64_t>(generator() % (i + 1)); });
}

std::vector<double> Uniform(int64_t L) {
  std::vector<double> T(L * L, 0.0);
  for (int64_t i = 0; i < L; ++i) std::fill_n(T.begin() + i * L, i + 1, 1.0 / (i + 1));
  return T;
}

std::vector<double> ZeroRowAndColumn(int64_t L) {
  std::vector<double> T = Attention(L, 1, false, 9);
  for (int64_t x = 0; x < L; ++x) T[L / 2 * L + x] = T[x * L + L / 3] = 0;
  return T;
}

std::vector<double> Reset(int64_t L) {
  std::vector<double> T = Attention(L, 1, false, 10);
  for (int64_t i = L / 2; i < L; ++i) std::fill_n(T.begin() + i * L, L / 2, 0.0);
  return T;
}

}  // namespace

std::vector<TestOperator> RealisticOperators() {
  return {
      {"attention_g1", [](int64_t L) { return Attention(L, 1, false, 1); }},
      {"attention_g8", [](int64_t L) { return Attention(L, 8, false, 2); }},
      {"attention_sink", [](int64_t L) { return Attention(L, 3, true, 3); }},
      {"attention_topic", TopicAttention},
      {"gla_64", [](int64_t L) { return GatedLinearAttention(L, 64, 1, 1.0 / 16, 4); }},
      {"hyena", Hyena},
      {"s6", SelectiveScan},
  };
}

std::vector<TestOperator> DegenerateOperators() {
  return {
      {"zero", [](int64_t L) { return OneHot(L, [](int64_t) { return -1; }); }},
      {"shift", [](int64_t L) { return OneHot(L, [](int64_t i) { return i - 5; }); }},
      {"uniform", Uniform},
      {"copy",
       [](int64_t L) {
         return OneHot(L, [](int64_t i) { return i % 17 == 0 ? -1 : i / 17 * 17; });
       }},
      {"hard", HardAttention},
      {"zero_row_and_column", ZeroRowAndColumn},
      {"underflowing_gates", [](int64_t L) { return GatedLinearAttention(L, 16, 100, 4, 12); }},
      {"reset", Reset},
  };
}

std::vector<double> MakeTestOperator(const std::string& name, int64_t length) {
  for (const auto& family : {RealisticOperators(), DegenerateOperators()}) {
    for (const TestOperator& op : family) {
      if (op.name == name) return op.make(length);
    }
  }
  std::abort();  // The test names an operator that does not exist.
}

}  // namespace ess::testing
