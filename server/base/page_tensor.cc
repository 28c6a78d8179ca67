#include "server/base/page_tensor.h"

#include <ATen/ATen.h>
#include <sys/mman.h>

#include <atomic>
#include <new>

namespace ess {
namespace {

std::atomic<int64_t> bytes_in_pages{0};

}  // namespace

int64_t BytesInPages() { return bytes_in_pages; }

at::Tensor EmptyInPages(at::IntArrayRef shape, at::ScalarType type) {
  constexpr size_t kSmallestBytes = size_t{1} << 20;
  const auto options = at::TensorOptions().dtype(type);
  const size_t bytes = at::empty(shape, options.device(at::kMeta)).nbytes();
  if (bytes < kSmallestBytes) return at::empty(shape, options);
  void* const pages =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  bytes_in_pages += static_cast<int64_t>(bytes);
  const auto give_back = [bytes](void* memory) {
    munmap(memory, bytes);
    bytes_in_pages -= static_cast<int64_t>(bytes);
  };
  return at::from_blob(pages, shape, give_back, options);
}

}  // namespace ess
