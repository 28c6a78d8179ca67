// The inertia tree of some neighbouring positions of an operator whose memory is a window.
//
// For positions [first, first + width) with width >= memory, no row from first + width on has an
// entry in a column before `first`, sinks aside. So, without sinks, the rows and columns that all
// these positions share do not meet, their elimination from M (inertia_tree.h) takes two products,
//
//     A = tau I - X X^T / tau,   B = T[first:end, first:end],   C = tau I - Y^T Y / tau,
//     X = T[first:end, :first],  Y = T[end:, first:end],
//
// and the tree goes on from there. Columns of sinks before `first` do meet the shared rows. They
// are kept as a border of A, B, C and eliminated next, one panel of `sinks` pivots. X X^T, Y^T Y
// and the border are the same for every tau.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/local_matrix.h"
#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

// What Load prepares, for the code of every instruction set.
struct LocalWindowParts {
  int64_t width = 0;
  int64_t stride = 0;
  bool has_columns_before = false;  // Else A is a multiple of the identity.
  bool has_rows_after = false;      // Else so is C, if there is no border.
  double* rows_gram = nullptr;      // X X^T, band columns only [width, stride].
  double* inside = nullptr;         // B [width, stride].
  double* columns_gram = nullptr;   // Y^T Y [width, stride].
  double* sink_products = nullptr;  // G^T Y, G the rows from `end` of all sinks [sinks, stride].
  int64_t border = 0;               // Sinks before `first`, rounded up to 8.
  double* panel = nullptr;          // Their G^T G | X^T | G^T Y in strips (panel_factor-inl.h).

  // Numbers in the first part of the panel, and in each of the other two.
  int64_t pivot_part() const { return StripCount(border) * kStrip * border; }
  int64_t side_part() const { return StripCount(width) * kStrip * border; }
};

struct BorderResult {
  double pivot_sum = 0;
  double growth = 0;
  bool singular_pivot = false;
};

// Scratch is kept from one window to the next. Thread-compatible.
class LocalWindow {
 public:
  // `matrix` must outlive the window.
  explicit LocalWindow(const LocalMatrix& matrix) : matrix_(matrix) {}

  // Does nothing when this is what is loaded. Positions outside of [0, L) are empty: they only move
  // the cuts of the tree. REQUIRES: width a multiple of 8; width >= memory or first + width >= L;
  // `scale`, by which the entries are multiplied, a power of two that makes the largest of these
  // H_i about 1. Cost: 2/3 memory^2 width operations, and sinks (memory + sinks) (width + 64).
  absl::Status Load(int64_t first, int64_t width, double scale,
                    const CancellationToken& cancellation);

  // A lower bound of the largest sigma_1 of the window's positions, in the scale of Load; good
  // within a factor of ten where neighbouring positions are alike.
  double norm_bound() const { return norm_bound_; }

  // For each position i of the window, sums[i - first] =
  //   kNegative: how many singular values of H_i are above tau;
  //   kLogAbs:   log det(I + H_i^T H_i / tau^2).
  // REQUIRES: a successful Load; tau > 0, in the scale of Load; sums.size() == width.
  // Cost: 1.6 width^3 operations, and 3 sinks width^2.
  absl::StatusOr<TreeResult> Run(double tau, PivotSum sum, std::span<double> sums,
                                 const CancellationToken& cancellation);

 private:
  void Allocate(int64_t first, int64_t width);
  void CopyInside(int64_t first, double scale);
  void AddSinks(int64_t first, double scale, std::span<const double> gram);
  double InsideNorm() const;
  // Eliminates the border from A, B and C, its own multiple of the identity being `identity`.
  absl::StatusOr<BorderResult> RunBorder(double identity, PivotSum sum,
                                         const CancellationToken& cancellation);

  const LocalMatrix& matrix_;
  Arena memory_;
  std::optional<ArenaScope> allocated_;  // Of memory_.
  LocalWindowParts parts_;
  int64_t first_ = 0;
  double scale_ = 0;  // 0: nothing is loaded.
  double norm_bound_ = 0;
  double* a_ = nullptr;
  double* b_ = nullptr;
  double* c_ = nullptr;
  double* panel_u_ = nullptr;
  double* panel_v_ = nullptr;
  Arena scratch_;
};

}  // namespace ess::linalg
