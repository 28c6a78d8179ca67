#include "server/app/openmp_wait.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "server/base/log.h"

namespace ess {
namespace {

// Tens of microseconds: longer than the gaps between the loops of one layer.
constexpr char kSpinCount[] = "10000";

}  // namespace

void RestartWithShortOpenMpSpin(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  setenv("GOMP_SPINCOUNT", kSpinCount, /*overwrite=*/1);
  std::error_code error;
  // The real path, so that the process keeps its name.
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  execv(program.c_str(), argv);
  ESS_LOG(warn, "cannot set GOMP_SPINCOUNT ({}); a busy machine slows the forward pass more",
          std::strerror(errno));
}

}  // namespace ess
