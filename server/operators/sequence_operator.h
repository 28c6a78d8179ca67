// What a sequence mixer does to one prompt: a causal linear operator T per head.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "server/linalg/block_spectra.h"
#include "server/linalg/channel_recurrence.h"
#include "server/linalg/symmetry.h"
#include "server/operators/state_size.h"

namespace ess::operators {

// The operators of a group of heads of one mixing layer for one prompt, in their native form.
// Immutable; all methods are thread-safe.
//
// T[i, j] weighs input j in output i; T[i, j] = 0 for j > i. ESS looks at H_i = T[i:, :i] only.
class SequenceOperator {
 public:
  virtual ~SequenceOperator() = default;

  // "DenseOperator", "DiagonalRecurrence", ...: the names of the Python client (docs/ess.md).
  virtual std::string_view class_name() const = 0;

  virtual int64_t head_count() const = 0;  // H
  virtual int64_t length() const = 0;      // L
  virtual StateSize state_size() const = 0;

  // Machine epsilon of the dtype that the features had when they made this operator: 2^-23 for
  // float32, 2^-7 for bfloat16. Scales the noise floor.
  virtual double feature_epsilon() const = 0;

  // Writes T of one head as float64, row-major [L, L], zeros above the diagonal.
  // REQUIRES: 0 <= head < head_count(), out.size() == L * L.
  virtual void DenseHead(int64_t head, std::span<double> out) const = 0;

  // The route of this class's own to the singular values of one head, which never forms T; null for
  // a class that has none. The operator outlives it.
  // REQUIRES: 0 <= head < head_count().
  virtual std::unique_ptr<linalg::BlockSpectra> NativeSpectra(int64_t head) const {
    return nullptr;
  }

  // What is known of the matrix of every head.
  virtual linalg::Symmetry symmetry() const { return linalg::Symmetry::kNone; }

  // The matrices of all heads [H, L, L], on the device where the model made them; null for a class
  // that keeps factors.
  virtual const at::Tensor* dense_maps() const { return nullptr; }

  // kInternal, with head and entry, when a factor that a native route reads is not finite.
  virtual absl::Status CheckFinite() const { return absl::OkStatus(); }

  // The numbers that make one head, when they do not depend on the model's input, as the taps of a
  // filter without gates; else empty. Equal numbers of one class, equal operators.
  virtual std::span<const double> InvariantHead(int64_t head) const { return {}; }

  // All heads as channels of one small diagonal recurrence; null for other classes and for states
  // too large for that route.
  virtual const linalg::ChannelRecurrence* channel_recurrence() const { return nullptr; }

  // y = T u without forming T where the class allows: u and the result are [H, L, C], float64 on
  // the CPU. The contract tests compare it with DenseHead and with the mixer's own output.
  virtual at::Tensor Apply(const at::Tensor& u) const = 0;
};

}  // namespace ess::operators
