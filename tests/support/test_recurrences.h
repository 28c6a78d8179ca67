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
  kScalarGate,  // Mamba-2, RetNet: a [L].
  kVectorGate,  // GLA: a [L, N].
};
std::string RecurrenceKindName(RecurrenceKind kind);

// Shapes of the arrays: design of each StateSpace.
struct TestRecurrence {
  RecurrenceKind kind = RecurrenceKind::kVectorGate;
  int64_t length = 0;
  int64_t states = 0;
  bool reads_before = false;
  std::vector<double> a;
  std::vector<double> b;
  std::vector<double> c;

  // Refers to the arrays of this object.
  std::unique_ptr<const linalg::StateSpace> Space() const;
  // A_t h.
  std::vector<double> Advance(int64_t t, const std::vector<double>& h) const;
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
