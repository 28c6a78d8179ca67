#include "tests/support/test_recurrences.h"

#include <cmath>
#include <random>

#include "server/linalg/diagonal_state_space.h"

namespace ess::testing {
namespace {

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
  const int64_t size = r.length * r.states;
  r.b.resize(size);
  r.c.resize(size);
  for (double& x : r.b) x = normal(generator);
  for (double& x : r.c) x = normal(generator) / std::sqrt(r.states);
  for (int64_t x = 0; x < size; ++x) {
    const int64_t t = x / r.states;
    const int64_t n = x % r.states;
    if (flavour == Flavour::kZeroInput) r.b[x] = 0;
    if (flavour == Flavour::kZeroOutput && 2 * t >= r.length) r.c[x] = 0;
    if (flavour == Flavour::kCopies) r.b[x] = r.c[x] = t % (r.states + 3) == n;
  }
  if (flavour == Flavour::kRankDeficient) {
    for (std::vector<double>* factor : {&r.b, &r.c}) {
      for (int64_t x = 2 * r.states; x < size; ++x) {
        const int64_t n = x % r.states;
        if (n == 0 && r.states > 1) normal.reset();
        (*factor)[x] = (*factor)[n] * std::cos(x / r.states) +
                       (*factor)[r.states + n] * std::sin(x / r.states);
      }
    }
  }
}

}  // namespace

std::string RecurrenceKindName(RecurrenceKind kind) {
  switch (kind) {
    case RecurrenceKind::kScalarGate:
      return "scalar_gate";
    case RecurrenceKind::kVectorGate:
      return "vector_gate";
  }
  return "";
}

std::string FlavourName(Flavour flavour) {
  constexpr const char* kNames[] = {"slow",           "fast",       "resets",      "underflow",
                                    "rank_deficient", "zero_input", "zero_output", "copies"};
  return kNames[static_cast<int>(flavour)];
}

std::unique_ptr<const linalg::StateSpace> TestRecurrence::Space() const {
  return std::make_unique<linalg::DiagonalStateSpace>(
      linalg::DiagonalFactors{.length = length,
                              .states = states,
                              .scalar_gate = kind == RecurrenceKind::kScalarGate,
                              .reads_before = reads_before,
                              .a = a.data(),
                              .b = b.data(),
                              .c = c.data()});
}

std::vector<double> TestRecurrence::Advance(int64_t t, const std::vector<double>& h) const {
  std::vector<double> next = h;
  for (int64_t n = 0; n < states; ++n) {
    next[n] *= kind == RecurrenceKind::kScalarGate ? a[t] : a[t * states + n];
  }
  return next;
}

std::vector<double> TestRecurrence::Dense() const {
  std::vector<double> matrix(length * length, 0.0);
  for (int64_t j = 0; j < length; ++j) {
    std::vector<double> h;
    const auto read = [&](int64_t t) {
      double sum = 0;
      for (int64_t n = 0; n < states; ++n) sum += c[t * states + n] * h[n];
      matrix[t * length + j] = sum;
    };
    for (int64_t t = j; t < length; ++t) {
      if (t > j && reads_before) read(t);
      h = t == j ? std::vector<double>(b.begin() + j * states, b.begin() + (j + 1) * states)
                 : Advance(t, h);
      if (!reads_before) read(t);
    }
  }
  return matrix;
}

TestRecurrence MakeTestRecurrence(RecurrenceKind kind, Flavour flavour, int64_t length,
                                  int64_t states, uint64_t seed) {
  std::mt19937_64 generator(seed);
  TestRecurrence r{.kind = kind, .length = length, .states = states, .a = {}, .b = {}, .c = {}};
  FillFactors(flavour, r, generator);
  const int64_t gates = kind == RecurrenceKind::kScalarGate ? 1 : states;
  for (int64_t t = 0; t < length; ++t) {
    for (int64_t n = 0; n < gates; ++n) r.a.push_back(GateFor(flavour, t, generator));
  }
  return r;
}

}  // namespace ess::testing
