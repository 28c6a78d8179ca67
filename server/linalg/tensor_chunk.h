// Some heads of an operator on their device, and the tree's answers about them on the host.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/tensor_tree.h"

namespace ess::linalg {

// Of H heads at S shifts each.
struct ShiftSums {
  int64_t shifts = 0;
  int64_t length = 0;
  std::vector<double> sums;    // [H, S, L]
  std::vector<double> growth;  // [H, S]
  int64_t pivots = 0;          // As TensorTreeSums.

  std::span<const double> Of(int64_t head, int64_t shift) const {
    return {sums.data() + (head * shifts + shift) * length, static_cast<size_t>(length)};
  }
};

// All methods throw what LibTorch throws.
class TensorChunk {
 public:
  // `matrices` as TensorTree takes them. Trees run for at most `shifts_at_once` shifts at a time.
  TensorChunk(const at::Tensor& matrices, int64_t shifts_at_once)
      : tree_(matrices), shifts_at_once_(shifts_at_once) {}

  int64_t heads() const { return tree_.heads(); }
  int64_t length() const { return tree_.length(); }
  at::Tensor matrices() const { return tree_.matrices(); }  // [H, L, L]

  void set_shifts_at_once(int64_t shifts) { shifts_at_once_ = shifts; }

  // The trees of `shifts` [H, S], one after the other in the shifts and side by side in the heads.
  // Counts have rows and columns of +shift, logarithms of determinants columns of -shift.
  // Errors: kCancelled, kDeadlineExceeded. Waits for the device once for each S / shifts_at_once.
  absl::StatusOr<ShiftSums> Run(std::span<const double> shifts, PivotSum sum,
                                const CancellationToken& cancellation) const;

  TensorChunk Select(const std::vector<int64_t>& heads) const;

  // Host numbers of this shape as float64 on the device.
  at::Tensor OnDevice(std::span<const double> numbers, at::IntArrayRef shape) const;

 private:
  TensorChunk(TensorTree tree, int64_t shifts_at_once)
      : tree_(std::move(tree)), shifts_at_once_(shifts_at_once) {}

  TensorTree tree_;
  int64_t shifts_at_once_;
};

// Any tensor's numbers, row-major, as float64 on the host. Waits for the device.
std::vector<double> OnHost(const at::Tensor& tensor);

}  // namespace ess::linalg
