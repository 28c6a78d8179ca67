#include "server/base/torch_status.h"

#include <ATen/ATen.h>

#include <new>
#include <string>

#include "c10/util/Exception.h"
#include "fmt/format.h"
#include "server/base/device_failure.h"
#include "server/base/log.h"

namespace ess {
namespace {

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

// `on_device`: an accelerator's own error, by its type; others say so in their text.
absl::Status InternalError(std::string_view what, const char* text, bool on_device) {
  const std::string line = FirstLine(text);
  const bool accelerator = on_device || line.find("CUDA error: ") != std::string::npos ||
                           line.find("HIP error: ") != std::string::npos;
  if (!accelerator) {
    // Its words are those of a library, with source files and C++ names: not for callers.
    ESS_LOG(error, "{}: {}", what, line);
    return absl::InternalError(
        fmt::format("{}: an error inside the server; its log says which", what));
  }
  if (!BreaksTheDevice(line)) return absl::InternalError(fmt::format("{}: {}", what, line));
  RecordDeviceFailure(line);
  return absl::InternalError(fmt::format(
      "{}: {}; the device cannot be used until the server is started again", what, line));
}

}  // namespace

absl::Status CatchTorch(std::string_view what, absl::FunctionRef<absl::Status()> work) {
  try {
    return work();
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(fmt::format("{}: out of device memory: {}", what,
                                                    FirstLine(error.what_without_backtrace())));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(fmt::format("{}: out of host memory", what));
  } catch (const c10::AcceleratorError& error) {
    return InternalError(what, error.what_without_backtrace(), /*on_device=*/true);
  } catch (const c10::Error& error) {
    return InternalError(what, error.what_without_backtrace(), /*on_device=*/false);
  } catch (const std::exception& error) {
    return InternalError(what, error.what(), /*on_device=*/false);
  }
}

}  // namespace ess
