#include "server/linalg/number_buffer.h"

#include <sys/mman.h>

#include <new>

namespace ess::linalg {
namespace {

constexpr int64_t kCacheLine = 64;
constexpr int64_t kHugePage = int64_t{2} << 20;
constexpr int64_t kFewestHugeBytes = int64_t{1} << 20;

}  // namespace

void NumberBuffer::Reserve(int64_t count) {
  if (count <= capacity_) return;
  memory_.reset();  // Before the new one is there: peak memory is what counts.
  capacity_ = 0;
  int64_t bytes = count * static_cast<int64_t>(sizeof(double));
  const bool huge = bytes >= kFewestHugeBytes;
  const int64_t alignment = huge ? kHugePage : kCacheLine;
  bytes = (bytes + alignment - 1) / alignment * alignment;
  memory_.reset(static_cast<double*>(std::aligned_alloc(alignment, bytes)));
  if (memory_ == nullptr) throw std::bad_alloc();
  capacity_ = bytes / static_cast<int64_t>(sizeof(double));
  // Advice: where it is not taken, pages are small.
  if (huge) static_cast<void>(madvise(memory_.get(), bytes, MADV_HUGEPAGE));
}

}  // namespace ess::linalg
