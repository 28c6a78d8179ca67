#include "server/base/random_numbers.h"

#include <cmath>
#include <numbers>

#include "server/base/log.h"

namespace ess {
namespace {

constexpr uint64_t kGoldenRatio = 0x9e3779b97f4a7c15;

uint64_t Mix(uint64_t bits) {
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111eb;
  return bits ^ (bits >> 31);
}

}  // namespace

RandomNumbers::RandomNumbers(uint64_t seed, std::string_view name)
    : start_(Mix(seed + kGoldenRatio)) {
  for (const char c : name) start_ = Mix(start_ + kGoldenRatio + static_cast<unsigned char>(c));
}

uint64_t RandomNumbers::Bits(uint64_t index) const {
  return Mix(start_ + (index + 1) * kGoldenRatio);
}

void RandomNumbers::Uniform(int64_t first, std::span<float> values) const {
  for (size_t i = 0; i < values.size(); ++i) {
    const uint64_t bits = Bits(static_cast<uint64_t>(first) + i);
    values[i] = static_cast<float>(bits >> 40) * 0x1p-24f;
  }
}

void RandomNumbers::Normal(int64_t first, std::span<float> values) const {
  ESS_CHECK(first % 2 == 0);
  const uint64_t first_pair = static_cast<uint64_t>(first) / 2;
  for (size_t i = 0; i < values.size(); i += 2) {
    const uint64_t bits = Bits(first_pair + i / 2);
    // In (0, 1]: never a logarithm of 0.
    const float u = (static_cast<float>(bits >> 32) + 0.5f) * 0x1p-32f;
    const float radius = std::sqrt(-2 * std::log(u));
    const float angle = static_cast<float>(static_cast<uint32_t>(bits)) *
                        (2 * std::numbers::pi_v<float> * 0x1p-32f);
    values[i] = radius * std::cos(angle);
    if (i + 1 < values.size()) values[i + 1] = radius * std::sin(angle);
  }
}

}  // namespace ess
