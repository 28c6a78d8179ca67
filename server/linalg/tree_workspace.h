// What a run of the inertia tree works on, whatever the instruction set: views, nodes, scratch.
#pragma once

#include <cstdint>
#include <limits>

#include "absl/status/status.h"
#include "server/base/cancellation.h"
#include "server/base/log.h"
#include "server/linalg/number_buffer.h"

namespace ess::linalg {

// Everything is cut into blocks of 8 x 8; products run over tiles of 8 x 24. Operands of products
// are packed: the left one in strips of 8 columns, the right one in strips of 24, both row by row.
inline constexpr int64_t kBlock = 8;
inline constexpr int64_t kStrip = 24;

constexpr int64_t StripCount(int64_t columns) { return (columns + kStrip - 1) / kStrip; }

// Row-major part of a matrix; no data means a multiple of the identity (TreeProblem).
struct MatrixView {
  const double* data = nullptr;
  int64_t stride = 0;

  bool is_identity() const { return data == nullptr; }
  MatrixView Block(int64_t row, int64_t column) const {
    return is_identity() ? *this : MatrixView{data + row * stride + column, stride};
  }
};

// Never a power of two for wide matrices, which would put a column into one cache set.
constexpr int64_t StrideFor(int64_t width) { return width >= 64 ? width + kBlock : width; }

// Scratch handed out in stack order. Thread-compatible.
class Arena {
 public:
  void Reserve(int64_t capacity) { memory_.Reserve(capacity); }
  static constexpr int64_t Rounded(int64_t count) { return (count + kBlock - 1) / kBlock * kBlock; }

  // Valid until the ArenaScope around it ends; the numbers are not initialized.
  double* Allocate(int64_t count) {
    double* result = memory_.data() + used_;
    used_ += Rounded(count);
    ESS_CHECK(used_ <= memory_.capacity());
    return result;
  }

 private:
  friend class ArenaScope;
  NumberBuffer memory_;
  int64_t used_ = 0;
};

// Gives back, at its end, what was allocated since its start.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.used_) {}
  ~ArenaScope() { arena_.used_ = mark_; }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  const int64_t mark_;
};

// Looks at the cancellation token about every 5 million operations, a millisecond at worst.
class WorkMeter {
 public:
  explicit WorkMeter(const CancellationToken& cancellation) : cancellation_(cancellation) {}

  // Books work that is about to be done; false when the run must stop.
  bool Continue(int64_t operations) {
    booked_ += operations;
    if (booked_ >= kOperationsPerCheck) [[unlikely]] {
      booked_ = 0;
      if (status_.ok()) status_ = cancellation_.Check();
    }
    return status_.ok();
  }
  const absl::Status& status() const { return status_; }

 private:
  static constexpr int64_t kOperationsPerCheck = 5'000'000;
  const CancellationToken& cancellation_;
  int64_t booked_ = 0;
  absl::Status status_;
};

// A node's width is a multiple of 8; its first half has the larger number of blocks.
constexpr int64_t FirstHalf(int64_t width) { return (width / kBlock + 1) / 2 * kBlock; }

// Positions [first_position, first_position + width) and what is left of M for them after the
// elimination of the rows and columns that all of them have in common (inertia_tree.h).
struct TreeNode {
  int64_t first_position = 0;
  int64_t width = 0;     // A multiple of 8.
  MatrixView a{};        // Rows x rows; the lower triangle.
  MatrixView b{};        // Rows x columns; the strictly lower triangle.
  MatrixView c{};        // Columns x columns; the lower triangle.
  double pivot_sum = 0;  // Of the pivots eliminated so far.
  // Positions in the first half, a multiple of 8 below the width; 0: half of the blocks.
  int64_t cut = 0;

  int64_t first_half() const { return cut > 0 ? cut : FirstHalf(width); }
};

// Products of the root's B21 with itself, shared by every tau. One without data is made by the run.
struct RootGrams {
  MatrixView columns;  // B21^T B21, for the first half of the positions.
  MatrixView rows;     // B21 B21^T, for the second half.
};

// What is added up over the pivots on the way from the root to a position.
enum class PivotSum {
  kNegative,  // 1 for each negative pivot: the inertia, and so a count of singular values.
  kLogAbs,    // log |pivot|: the logarithm of the determinant.
};

// Half-open.
struct PositionRange {
  int64_t begin = 0;
  int64_t end = std::numeric_limits<int64_t>::max();
};

struct TreeProblem {
  TreeNode root;
  // Positions that are asked for, counted as the root counts them: the tree goes nowhere else.
  PositionRange wanted{};
  RootGrams grams{};
  // The multiples of the identity that an A or C without data stands for. Not 0.
  double a_identity = 0;
  double c_identity = 0;
  PivotSum sum = PivotSum::kNegative;
};

struct TreeResult {
  // Largest |u v| of an elimination step: what rounding errors are measured against.
  double growth = 0;
  bool singular_pivot = false;
};

}  // namespace ess::linalg
