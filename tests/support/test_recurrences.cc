#include "tests/support/test_recurrences.h"

#include <cmath>
#include <random>

#include "server/linalg/delta_state_space.h"
#include "server/linalg/diagonal_state_space.h"
#include "server/linalg/rank_one_state_space.h"
#include "server/linalg/stepped_state_space.h"

namespace ess::testing {
namespace {

bool IsComplex(RecurrenceKind kind) {
  return kind == RecurrenceKind::kComplex || kind == RecurrenceKind::kComplexScalar;
}

// Memories of about 1 / rate positions.
double RandomGate(double rate, std::mt19937_64& generator) {
  std::normal_distribution<double> normal;
  return std::exp(-rate * std::log1p(std::exp(-normal(generator))));
}

double GateFor(Flavour flavour, int64_t t, std::mt19937_64& generator) {
  switch (flavour) {
    case Flavour::kFast:
      return RandomGate(2, generator);
    case Flavour::kResets:
      return t % 23 == 17 ? 0 : RandomGate(1.0 / 16, generator);
    case Flavour::kUnderflow:
      return generator() % 3 == 0 ? 1e-180 : 1;
    case Flavour::kCopies:
      return 1;
    default:
      return RandomGate(1.0 / 16, generator);
  }
}

void FillFactors(Flavour flavour, TestRecurrence& r, std::mt19937_64& generator) {
  std::normal_distribution<double> normal;
  const int64_t N = r.real_states();
  const int64_t size = r.length * N;
  r.b.resize(size);
  r.c.resize(size);
  for (double& x : r.b) x = normal(generator);
  for (double& x : r.c) x = normal(generator) / std::sqrt(N);
  for (int64_t x = 0; x < size; ++x) {
    const int64_t t = x / N;
    const int64_t n = x % N;
    if (flavour == Flavour::kZeroInput) r.b[x] = 0;
    if (flavour == Flavour::kZeroOutput && 2 * t >= r.length) r.c[x] = 0;
    if (flavour == Flavour::kCopies) r.b[x] = r.c[x] = t % (N + 3) == n;
  }
  if (flavour == Flavour::kRankDeficient) {
    for (std::vector<double>* factor : {&r.b, &r.c}) {
      for (int64_t x = 2 * N; x < size; ++x) {
        const int64_t n = x % N;
        (*factor)[x] = (*factor)[n] * std::cos(x / N) + (*factor)[N + n] * std::sin(x / N);
      }
    }
  }
}

void FillDelta(Flavour flavour, TestRecurrence& r, std::mt19937_64& generator) {
  std::normal_distribution<double> normal;
  for (int64_t t = 0; t < r.length; ++t) {
    r.a.push_back(GateFor(flavour == Flavour::kSlow ? Flavour::kCopies : flavour, t, generator));
    r.beta.push_back(flavour == Flavour::kFast ? 2 : 1 / (1 + std::exp(-normal(generator))));
    double squares = 0;
    for (int64_t n = 0; n < r.states; ++n) squares += std::pow(r.b[t * r.states + n], 2);
    for (int64_t n = 0; n < r.states && squares > 0; ++n) {
      r.b[t * r.states + n] /= std::sqrt(squares);
    }
  }
}

// Contractions: |p . q| stays below what the gates forget.
void FillRankOne(Flavour flavour, TestRecurrence& r, std::mt19937_64& generator) {
  std::normal_distribution<double> normal;
  for (int64_t x = 0; x < r.length * r.states; ++x) {
    r.a.push_back(GateFor(flavour, x / r.states, generator));
    const double share = flavour == Flavour::kCopies ? 0 : 0.3 / std::sqrt(r.states);
    r.q.push_back(share * normal(generator));
    r.p.push_back(-r.a.back() * r.q.back());
  }
}

// A rotation of two states and the gates.
void FillGeneral(Flavour flavour, TestRecurrence& r, std::mt19937_64& generator) {
  const int64_t N = r.states;
  r.a.assign(r.length * N * N, 0.0);
  for (int64_t t = 0; t < r.length; ++t) {
    double* matrix = r.a.data() + t * N * N;
    for (int64_t n = 0; n < N; ++n) matrix[n * N + n] = GateFor(flavour, t, generator);
    const int64_t x = generator() % N;
    const int64_t y = generator() % N;
    if (x == y) continue;
    const double first = matrix[x * N + x];
    const double second = matrix[y * N + y];
    matrix[x * N + x] = 0.6 * first;
    matrix[x * N + y] = -0.8 * second;
    matrix[y * N + x] = 0.8 * first;
    matrix[y * N + y] = 0.6 * second;
  }
}

}  // namespace

std::string RecurrenceKindName(RecurrenceKind kind) {
  constexpr const char* kNames[] = {"scalar_gate", "vector_gate", "complex", "complex_scalar",
                                    "delta",       "rank_one",    "general"};
  return kNames[static_cast<int>(kind)];
}

std::string FlavourName(Flavour flavour) {
  constexpr const char* kNames[] = {"slow",           "fast",       "resets",      "underflow",
                                    "rank_deficient", "zero_input", "zero_output", "copies"};
  return kNames[static_cast<int>(flavour)];
}

std::unique_ptr<const linalg::StateSpace> TestRecurrence::Space() const {
  const linalg::DiagonalFactors diagonal = {
      .length = length,
      .states = states,
      .scalar_gate = kind == RecurrenceKind::kScalarGate || kind == RecurrenceKind::kComplexScalar,
      .reads_before = reads_before,
      .a = a.data(),
      .b = b.data(),
      .c = c.data()};
  switch (kind) {
    case RecurrenceKind::kScalarGate:
    case RecurrenceKind::kVectorGate:
      return std::make_unique<linalg::DiagonalStateSpace>(diagonal);
    case RecurrenceKind::kComplex:
    case RecurrenceKind::kComplexScalar:
      return std::make_unique<linalg::ComplexDiagonalStateSpace>(diagonal);
    case RecurrenceKind::kDelta:
      return std::make_unique<linalg::DeltaStateSpace>(
          linalg::DeltaFactors{.length = length,
                               .states = states,
                               .reads_before = reads_before,
                               .alpha = a.data(),
                               .beta = beta.data(),
                               .k = b.data(),
                               .c = c.data()});
    case RecurrenceKind::kRankOne:
      return std::make_unique<linalg::DiagonalPlusRankOneStateSpace>(
          linalg::RankOneFactors{.length = length,
                                 .states = states,
                                 .reads_before = reads_before,
                                 .w = a.data(),
                                 .p = p.data(),
                                 .q = q.data(),
                                 .k = b.data(),
                                 .c = c.data()});
    case RecurrenceKind::kGeneral:
      return std::make_unique<linalg::GeneralStateSpace>(
          linalg::SteppedFactors{.length = length,
                                 .states = states,
                                 .reads_before = reads_before,
                                 .b = b.data(),
                                 .c = c.data()},
          a.data());
  }
  return nullptr;
}

int64_t TestRecurrence::real_states() const { return IsComplex(kind) ? 2 * states : states; }

std::vector<double> TestRecurrence::Input(int64_t t) const {
  const int64_t N = real_states();
  std::vector<double> input(b.begin() + t * N, b.begin() + (t + 1) * N);
  if (kind == RecurrenceKind::kDelta) {
    for (double& x : input) x *= beta[t];
  }
  return input;
}

std::vector<double> TestRecurrence::Output(int64_t t) const {
  const int64_t N = real_states();
  std::vector<double> output(c.begin() + t * N, c.begin() + (t + 1) * N);
  for (int64_t n = 1; IsComplex(kind) && n < N; n += 2) output[n] = -output[n];
  return output;
}

std::vector<double> TestRecurrence::Advance(int64_t t, const std::vector<double>& h) const {
  const int64_t N = real_states();
  std::vector<double> next(N, 0.0);
  double along = 0;
  for (int64_t n = 0; n < N; ++n) {
    if (kind == RecurrenceKind::kDelta) along += b[t * N + n] * h[n];
    if (kind == RecurrenceKind::kRankOne) along += q[t * N + n] * h[n];
  }
  for (int64_t n = 0; n < N; ++n) {
    const int64_t at = t * N + n;
    switch (kind) {
      case RecurrenceKind::kScalarGate:
        next[n] = a[t] * h[n];
        break;
      case RecurrenceKind::kVectorGate:
        next[n] = a[at] * h[n];
        break;
      case RecurrenceKind::kComplex:
      case RecurrenceKind::kComplexScalar: {
        const int64_t gate = kind == RecurrenceKind::kComplex ? at / 2 * 2 : 2 * t;
        next[n] = n % 2 == 0 ? a[gate] * h[n] - a[gate + 1] * h[n + 1]
                             : a[gate] * h[n] + a[gate + 1] * h[n - 1];
        break;
      }
      case RecurrenceKind::kDelta:
        next[n] = a[t] * (h[n] - beta[t] * b[at] * along);
        break;
      case RecurrenceKind::kRankOne:
        next[n] = a[at] * h[n] + p[at] * along;
        break;
      case RecurrenceKind::kGeneral:
        for (int64_t m = 0; m < N; ++m) next[n] += a[at * N + m] * h[m];
        break;
    }
  }
  return next;
}

std::vector<double> TestRecurrence::Dense() const {
  const int64_t N = real_states();
  std::vector<std::vector<double>> outputs;
  for (int64_t t = 0; t < length; ++t) outputs.push_back(Output(t));
  std::vector<double> matrix(length * length, 0.0);
  for (int64_t j = 0; j < length; ++j) {
    std::vector<double> h;
    const auto read = [&](int64_t t) {
      double sum = 0;
      for (int64_t n = 0; n < N; ++n) sum += outputs[t][n] * h[n];
      matrix[t * length + j] = sum;
    };
    for (int64_t t = j; t < length; ++t) {
      if (t > j && reads_before) read(t);
      h = t == j ? Input(t) : Advance(t, h);
      if (!reads_before) read(t);
    }
  }
  return matrix;
}

TestRecurrence MakeTestRecurrence(RecurrenceKind kind, Flavour flavour, int64_t length,
                                  int64_t states, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal;
  TestRecurrence r;
  r.kind = kind;
  r.length = length;
  r.states = states;
  FillFactors(flavour, r, generator);
  switch (kind) {
    case RecurrenceKind::kScalarGate:
      for (int64_t t = 0; t < length; ++t) r.a.push_back(GateFor(flavour, t, generator));
      break;
    case RecurrenceKind::kVectorGate:
      for (int64_t x = 0; x < length * states; ++x) {
        r.a.push_back(GateFor(flavour, x / states, generator));
      }
      break;
    case RecurrenceKind::kComplex:
    case RecurrenceKind::kComplexScalar: {
      const int64_t gates = kind == RecurrenceKind::kComplex ? states : 1;
      for (int64_t x = 0; x < length * gates; ++x) {
        const double size = GateFor(flavour, x / gates, generator);
        const double angle = flavour == Flavour::kCopies ? 0 : normal(generator);
        r.a.push_back(size * std::cos(angle));
        r.a.push_back(size * std::sin(angle));
      }
      break;
    }
    case RecurrenceKind::kDelta:
      FillDelta(flavour, r, generator);
      break;
    case RecurrenceKind::kRankOne:
      FillRankOne(flavour, r, generator);
      break;
    case RecurrenceKind::kGeneral:
      FillGeneral(flavour, r, generator);
      break;
  }
  return r;
}

}  // namespace ess::testing
