#include "server/base/torch_status.h"

#include <ATen/ATen.h>

#include <new>
#include <string>

#include "c10/util/Exception.h"
#include "fmt/format.h"

namespace ess {
namespace {

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

absl::Status CatchTorch(std::string_view what, absl::FunctionRef<absl::Status()> work) {
  try {
    return work();
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(fmt::format("{}: out of device memory: {}", what,
                                                    FirstLine(error.what_without_backtrace())));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(fmt::format("{}: out of host memory", what));
  } catch (const c10::Error& error) {
    return absl::InternalError(
        fmt::format("{}: {}", what, FirstLine(error.what_without_backtrace())));
  } catch (const std::exception& error) {
    return absl::InternalError(fmt::format("{}: {}", what, FirstLine(error.what())));
  }
}

}  // namespace ess
