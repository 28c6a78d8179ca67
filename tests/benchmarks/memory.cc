#include "tests/benchmarks/memory.h"

#include <malloc.h>

#include <algorithm>
#include <fstream>
#include <string>

namespace ess::benchmarks {
namespace {

// A line of /proc/self/status, "VmRSS:" or "VmHWM:", in bytes.
double StatusBytes(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word != name) continue;
    double kibibytes = 0;
    status >> kibibytes;
    return kibibytes * 1024;
  }
  return 0;
}

}  // namespace

double PeakBytes(absl::FunctionRef<void()> work) {
  malloc_trim(0);  // Freed memory that the allocator kept would hide what the work takes.
  std::ofstream("/proc/self/clear_refs") << "5";  // Sets the high-water mark to the present level.
  const double before = StatusBytes("VmRSS:");
  work();
  return std::max(0.0, StatusBytes("VmHWM:") - before);
}

}  // namespace ess::benchmarks
