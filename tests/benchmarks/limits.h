// What was asked for and what this run measured, gathered by the parts of the benchmark and printed
// at its end. Nothing fails: machines are noisy, and a reader decides.
#pragma once

#include <string>
#include <vector>

namespace ess::benchmarks {

class Limits {
 public:
  // `measured` has to be at least, or at most, `asked`; `unit` is "x", "%", ...
  void AtLeast(const std::string& name, double asked, double measured, const std::string& unit);
  void AtMost(const std::string& name, double asked, double measured, const std::string& unit);
  // A line for what could not be measured here.
  void NotMeasured(const std::string& name, const std::string& reason);

  void Print() const;

 private:
  struct Line {
    std::string name;
    std::string asked;
    std::string measured;
    std::string verdict;
  };
  std::vector<Line> lines_;
};

}  // namespace ess::benchmarks
