// Tensors whose memory the system gets back at once.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace ess {

// An uninitialised tensor on the CPU. One of a mebibyte or more has pages of its own: malloc keeps
// what is freed in its arenas, of which malloc_trim trims only one to the end.
// Throws what LibTorch throws, std::bad_alloc included.
at::Tensor EmptyInPages(at::IntArrayRef shape, at::ScalarType type);

// Bytes of all such pages, which malloc does not count.
int64_t BytesInPages();

}  // namespace ess
