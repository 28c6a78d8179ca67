#include "tests/benchmarks/limits.h"

#include <cmath>
#include <iostream>

#include "fmt/format.h"

namespace ess::benchmarks {
namespace {

// As many digits as the comparison needs to be followed.
std::string Number(double value, const std::string& unit) {
  if (value == 0) return "0" + unit;
  if (std::abs(value) < 0.005) return fmt::format("{:.0e}{}", value, unit);
  return fmt::format("{:.{}f}{}", value, std::abs(value) < 20 ? 2 : 0, unit);
}

}  // namespace

void Limits::AtLeast(const std::string& name, double asked, double measured,
                     const std::string& unit) {
  lines_.push_back({name, ">= " + Number(asked, unit), Number(measured, unit),
                    measured >= asked ? "ok" : "MISSED"});
}

void Limits::AtMost(const std::string& name, double asked, double measured,
                    const std::string& unit) {
  lines_.push_back({name, "<= " + Number(asked, unit), Number(measured, unit),
                    measured <= asked ? "ok" : "MISSED"});
}

void Limits::NotMeasured(const std::string& name, const std::string& reason) {
  lines_.push_back({name, "", reason, "not measured"});
}

void Limits::Print() const {
  std::cout << fmt::format("{:<66} {:>12} {:>12}\n", "limit", "asked", "measured");
  for (const Line& line : lines_) {
    std::cout << fmt::format("{:<66} {:>12} {:>12}  {}\n", line.name, line.asked, line.measured,
                             line.verdict);
  }
  std::cout << std::flush;
}

}  // namespace ess::benchmarks
