#include "server/base/device_failure.h"

#include <algorithm>
#include <array>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"

namespace ess {
namespace {

// Parts, in lower case, of what cudaGetErrorString and hipGetErrorString say of errors that stay,
// and of devices that are gone.
constexpr std::array kLastingErrors = {
    "device-side assert",
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "invalid program counter",
    "operation not supported on global/shared address space",
    "hardware stack error",
    "launch failure",
    "launch timed out",
    "uncorrectable ecc error",
    "uncorrectable nvlink error",
    "busy or unavailable",
    "device not ready",
    "device is lost",
    "device_lost",
    "driver shutting down",
    "error: unknown error",
};

// The context is the process's, and so is this.
struct Record {
  absl::Mutex mutex;
  std::optional<std::string> error ABSL_GUARDED_BY(mutex);
};

Record& TheRecord() {
  static Record& record = *new Record;
  return record;
}

}  // namespace

bool BreaksTheDevice(std::string_view error) {
  const std::string text = absl::AsciiStrToLower(std::string(error));
  return std::any_of(kLastingErrors.begin(), kLastingErrors.end(),
                     [&text](const char* part) { return absl::StrContains(text, part); });
}

void RecordDeviceFailure(std::string_view error) {
  Record& record = TheRecord();
  absl::MutexLock lock(&record.mutex);
  if (!record.error) record.error.emplace(error);
}

std::optional<std::string> DeviceFailure() {
  Record& record = TheRecord();
  absl::MutexLock lock(&record.mutex);
  return record.error;
}

}  // namespace ess
