// One argument of an operator, for all its heads.
#pragma once

#include <ATen/core/Tensor.h>

#include <complex>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace ess::operators {

// The shape to which two shapes broadcast, aligned at their last dimension; none if they do not.
std::optional<std::vector<int64_t>> BroadcastShapes(std::span<const int64_t> a,
                                                    std::span<const int64_t> b);

// A tensor [..., own axes]: leading dimensions, then `own_axes` axes that belong to one head.
struct HeadTensor {
  const at::Tensor& tensor;
  int64_t own_axes;
};

// What the leading dimensions of all arguments broadcast to. REQUIRES: they do.
std::vector<int64_t> BatchShape(std::initializer_list<HeadTensor> arguments);

// An argument as float64 or complex128 on the CPU, contiguous. Heads are the batch in row-major
// order; what they share by broadcasting is kept once. Immutable.
class HeadArray {
 public:
  // Leading dimensions broadcast to `batch_shape`; an expanded one (stride 0) counts as 1.
  // `dtype` is Double or ComplexDouble. REQUIRES: a floating or complex tensor; complex only for
  // ComplexDouble.
  HeadArray(const HeadTensor& argument, const std::vector<int64_t>& batch_shape,
            at::ScalarType dtype = at::ScalarType::Double);

  int64_t head_count() const { return static_cast<int64_t>(rows_.size()); }  // H
  // Size of one of the own axes, counted from 0.
  int64_t size(int64_t axis) const { return values_.size(axis + 1); }
  // Rounding of the dtype that the tensor had: FeatureEpsilon.
  double feature_epsilon() const { return feature_epsilon_; }

  // kInternal, with `name`, the first head that has it and the entry among its own axes, if a value
  // is not finite. Cost: one pass.
  absl::Status CheckFinite(std::string_view name) const;

  // Own axes of one head, row-major. REQUIRES: the matching dtype, 0 <= head < head_count().
  std::span<const double> Real(int64_t head) const { return Head<double>(head); }
  std::span<const std::complex<double>> Complex(int64_t head) const {
    return Head<std::complex<double>>(head);
  }
  // Either of them, for code that serves both.
  template <typename Scalar>
  std::span<const Scalar> Head(int64_t head) const;

  // [H, own axes]. Cost: a copy where heads share values.
  at::Tensor AllHeads() const;
  // The same at one index of the first own axis: [H, other own axes].
  at::Tensor At(int64_t index) const;

 private:
  // The rows of `of`, repeated for the heads that share them.
  at::Tensor PerHead(const at::Tensor& of) const;

  at::Tensor values_;          // [rows, own axes], contiguous.
  std::vector<int64_t> rows_;  // [H]: which row is this head's.
  double feature_epsilon_;
};

// CheckFinite of several arguments, each with its name; an absent one is null.
struct NamedArray {
  std::string_view name;
  const HeadArray* array;
};
absl::Status CheckAllFinite(std::initializer_list<NamedArray> arguments);

}  // namespace ess::operators
