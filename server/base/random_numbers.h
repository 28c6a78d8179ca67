// Random numbers that depend on a seed, a name and their index, and on nothing else: not on what
// was drawn before, on the pieces in which they are drawn, or on the number of threads.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace ess {

// Two sequences of numbers, one uniform and one normal, made of the same random bits: use one of
// them. Immutable.
// Source: the counter of SplitMix64 (Steele, Lea, Flood 2014), started at a hash of seed and name;
//         normal numbers in pairs by Box and Muller.
// Cost: some 5 ns for each number.
class RandomNumbers {
 public:
  RandomNumbers(uint64_t seed, std::string_view name);

  // Numbers first, first + 1, ... of the sequence in [0, 1).
  void Uniform(int64_t first, std::span<float> values) const;

  // Numbers first, first + 1, ... of the standard normal sequence. REQUIRES: `first` is even.
  void Normal(int64_t first, std::span<float> values) const;

 private:
  uint64_t Bits(uint64_t index) const;

  uint64_t start_;
};

}  // namespace ess
