// Runs a fuzz target without libFuzzer: on its seeds, then on seeded changes to them.
//
//   PROGRAM                 the test: the same inputs in every run
//   PROGRAM INPUT           one input, from a file that a fuzzer left
//   PROGRAM --seeds=FOLDER  writes the seeds, for libFuzzer to start from
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "tests/fuzz/fuzz_target.h"

namespace {

constexpr int kRounds = 400;  // Of all seeds.
constexpr std::string_view kSeedsFlag = "--seeds=";
// What readers of text trip over.
const std::vector<std::string> kPieces = {"0",
                                          "-1",
                                          "16777216",
                                          "16777217",
                                          "9223372036854775807",
                                          "18446744073709551615",
                                          "1e308",
                                          "-1e-308",
                                          "0.5",
                                          "NaN",
                                          "Infinity",
                                          "null",
                                          "true",
                                          "\"\"",
                                          "[]",
                                          "{}",
                                          "[[[[[[[[[[",
                                          "{\"a\":{\"a\":",
                                          "\\u0000",
                                          "\xff\xfe",
                                          std::string(1, '\0'),
                                          std::string(5000, '['),
                                          std::string(5000, '9')};

class Mutator {
 public:
  explicit Mutator(std::vector<std::string> seeds) : seeds_(std::move(seeds)) {}

  std::string Mutate(std::string input) {
    for (uint64_t changes = 1 + Below(3); changes > 0; --changes) Change(input);
    return input;
  }

 private:
  uint64_t Below(uint64_t limit) { return limit == 0 ? 0 : random_() % limit; }

  void Change(std::string& input) {
    const size_t place = Below(input.size() + 1);
    switch (Below(6)) {
      case 0:
        if (place < input.size()) input[place] ^= static_cast<char>(1 << Below(8));
        break;
      case 1:
        input.erase(place, 1 + Below(16));
        break;
      case 2:
        input.insert(place, kPieces[Below(kPieces.size())]);
        break;
      case 3: {  // A value by another.
        const size_t begin = input.find_first_of(":[,", place);
        if (begin == std::string::npos) break;
        const size_t end = std::min(input.find_first_of(",}]", begin + 1), input.size());
        input.replace(begin + 1, end - begin - 1, kPieces[Below(kPieces.size())]);
        break;
      }
      case 4: {  // A part of another seed.
        const std::string& other = seeds_[Below(seeds_.size())];
        const size_t begin = Below(other.size() + 1);
        input.insert(place, other, begin, Below(64));
        break;
      }
      default:
        input.resize(place);
    }
  }

  const std::vector<std::string> seeds_;
  std::mt19937_64 random_{1};
};

int Run(const std::string& input) {
  return LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

int WriteSeeds(const std::filesystem::path& folder, const std::vector<std::string>& seeds) {
  std::filesystem::create_directories(folder);
  for (size_t i = 0; i < seeds.size(); ++i) {
    std::ofstream file(folder / ("seed_" + std::to_string(i)), std::ios::binary);
    file << seeds[i];
    if (!file.flush()) return 1;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> seeds = ess::fuzz::Seeds();
  const std::string_view argument = argc > 1 ? argv[1] : "";
  if (argument.starts_with(kSeedsFlag)) {
    return WriteSeeds(argument.substr(kSeedsFlag.size()), seeds);
  }
  if (!argument.empty()) {
    std::ifstream file(argv[1], std::ios::binary);
    return Run({std::istreambuf_iterator<char>(file), {}});
  }
  for (const std::string& seed : seeds) Run(seed);
  Mutator mutator(seeds);
  int64_t inputs = 0;
  for (int round = 0; round < kRounds; ++round) {
    for (const std::string& seed : seeds) {
      Run(mutator.Mutate(seed));
      ++inputs;
    }
  }
  std::printf("%zu seeds and %lld changed inputs\n", seeds.size(), static_cast<long long>(inputs));
  return 0;
}
