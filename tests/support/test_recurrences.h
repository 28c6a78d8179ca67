// Linear recurrences to test and race the recurrent routes on, with their matrix T by the
// definition.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "server/linalg/state_space.h"

namespace ess::testing {

enum class RecurrenceKind {
  kScalarGate,     // Mamba-2, RetNet: a [L].
  kVectorGate,     // GLA: a [L, N].
  kComplex,        // S4D: a, b, c [L, N], pairs (re, im).
  kComplexScalar,  // The same with a [L].
  kDelta,          // a = alpha [L], beta [L], b = k.
  kRankOne,        // a = w, p, q, b = k.
  kGeneral,        // a [L, N, N].
};
inline constexpr RecurrenceKind kAllRecurrenceKinds[] = {
    RecurrenceKind::kScalarGate,    RecurrenceKind::kVectorGate, RecurrenceKind::kComplex,
    RecurrenceKind::kComplexScalar, RecurrenceKind::kDelta,      RecurrenceKind::kRankOne,
    RecurrenceKind::kGeneral};
std::string RecurrenceKindName(RecurrenceKind kind);

// Arrays as each StateSpace wants them.
struct TestRecurrence {
  RecurrenceKind kind = RecurrenceKind::kVectorGate;
  int64_t length = 0;
  int64_t states = 0;
  bool reads_before = false;
  std::vector<double> a;
  std::vector<double> b;
  std::vector<double> c;
  std::vector<double> beta;
  std::vector<double> p;
  std::vector<double> q;

  // Refers to the arrays of this object.
  std::unique_ptr<const linalg::StateSpace> Space() const;
  int64_t real_states() const;
  // A_t h of a real state vector; b_t and c_t for it.
  std::vector<double> Advance(int64_t t, const std::vector<double>& h) const;
  std::vector<double> Input(int64_t t) const;
  std::vector<double> Output(int64_t t) const;
  // T, [L, L], step by step. Cost: O(L^2) times Advance.
  std::vector<double> Dense() const;
};

// What a test does to the gates and factors.
enum class Flavour {
  kSlow,           // A memory of about a hundred positions.
  kFast,           // Gates that forget within a few positions.
  kResets,         // Slow, with gates of exactly 0 now and then.
  kUnderflow,      // Gates that are 1 or far below 1e-150.
  kRankDeficient,  // b and c from two dimensions only.
  kZeroInput,      // b = 0.
  kZeroOutput,     // c = 0 in the second half.
  kCopies,         // Gates 1, b and c unit vectors: singular values that are exactly equal.
};
inline constexpr Flavour kAllFlavours[] = {
    Flavour::kSlow,          Flavour::kFast,      Flavour::kResets,     Flavour::kUnderflow,
    Flavour::kRankDeficient, Flavour::kZeroInput, Flavour::kZeroOutput, Flavour::kCopies};
std::string FlavourName(Flavour flavour);

TestRecurrence MakeTestRecurrence(RecurrenceKind kind, Flavour flavour, int64_t length,
                                  int64_t states, uint64_t seed);

}  // namespace ess::testing
