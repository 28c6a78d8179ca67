// Compiled once per instruction set by Highway; the best one of the machine is chosen at run time.
#include "server/linalg/inertia_tree_run.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/linalg/inertia_tree_run.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "server/linalg/leaf_nodes-inl.h"
#include "server/linalg/packed_strips-inl.h"
#include "server/linalg/panel_factor-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

class TreeRun {
 public:
  TreeRun(const TreeProblem& problem, std::span<double> sums, Arena& arena, WorkMeter& meter)
      : problem_(problem), arena_(arena), meter_(meter), leaves_(problem, sums) {}

  TreeResult Run() {
    Visit(problem_.root);
    leaves_.Finish();
    const double largest = *std::max_element(growth_, growth_ + kBlock);
    return {.growth = std::max(largest, leaves_.growth()),
            .singular_pivot = singular_pivot_ || leaves_.singular()};
  }

 private:
  void Visit(const TreeNode& node) {
    if (node.width == kBlock) {
      leaves_.Add(node);
      return;
    }
    for (const bool second : {false, true}) {
      if (!meter_.status().ok()) return;
      if (!IsWanted(node, second)) continue;
      const ArenaScope scope(arena_);
      const bool identity_pivot = (second ? node.c : node.a).is_identity();
      Visit(identity_pivot ? EliminateIdentity(node, second) : EliminatePanel(node, second));
    }
  }

  bool IsWanted(const TreeNode& node, bool second) const {
    const int64_t middle = node.first_position + node.first_half();
    return second ? problem_.wanted.end > middle &&
                        problem_.wanted.begin < node.first_position + node.width
                  : problem_.wanted.begin < middle && problem_.wanted.end > node.first_position;
  }

  // The half of the positions that a child keeps, before anything is subtracted.
  static TreeNode KeptHalf(const TreeNode& node, bool second) {
    const int64_t first = second ? node.first_half() : 0;
    return {.first_position = node.first_position + first,
            .width = second ? node.width - node.first_half() : node.first_half(),
            .a = node.a.Block(first, first),
            .b = node.b.Block(first, first),
            .c = node.c.Block(first, first),
            .pivot_sum = node.pivot_sum};
  }

  static void AddDiagonal(double* matrix, int64_t stride, int64_t width, double value) {
    for (int64_t i = 0; i < width; ++i) matrix[i * stride + i] += value;
  }

  // The pivot block is a multiple of I: one symmetric product, no factorization. The first child's
  // rows and the second child's columns stay that multiple.
  TreeNode EliminateIdentity(const TreeNode& node, bool second) {
    TreeNode child = KeptHalf(node, second);
    MatrixView& updated = second ? child.a : child.c;
    const int64_t width = child.width;
    const int64_t pivots = node.width - width;
    const int64_t stride = StrideFor(width);
    double* out = arena_.Allocate(width * stride);
    const double pivot = second ? problem_.c_identity : problem_.a_identity;
    const double scale = 1 / pivot;
    child.pivot_sum += static_cast<double>(pivots) *
                       (problem_.sum == PivotSum::kLogAbs ? std::log(std::abs(pivot)) : pivot < 0);
    const MatrixView gram = second ? problem_.grams.rows : problem_.grams.columns;
    if (node.width == problem_.root.width && gram.data != nullptr) {
      for (int64_t row = 0; row < width; ++row) {
        const int64_t end = (row / kBlock + 1) * kBlock;
        for (int64_t column = 0; column < end; ++column) {
          out[row * stride + column] = -scale * gram.data[row * gram.stride + column];
        }
      }
    } else {
      const ArenaScope scope(arena_);
      double* strips = arena_.Allocate(StripCount(width) * kStrip * pivots);
      PackB21(node, second, strips);
      UpdateLower<kStrip>(pivots, width, {{strips, strips, updated, out, stride, scale}}, meter_);
    }
    if (updated.is_identity()) {
      AddDiagonal(out, stride, width, second ? problem_.a_identity : problem_.c_identity);
    }
    updated = {out, stride};
    return child;
  }

  // Pivot rows from the left: rows of the second half, which read B21 by rows. From the right:
  // columns of the first half, which read it by columns.
  static void PackB21(const TreeNode& node, bool second, double* strips) {
    const int64_t first_half = node.first_half();
    const int64_t second_half = node.width - first_half;
    const MatrixView b21 = node.b.Block(first_half, 0);
    if (second) {
      PackTransposed(b21, first_half, second_half, false, strips);
    } else {
      PackRows(b21, second_half, first_half, strips);
    }
  }

  TreeNode EliminatePanel(const TreeNode& node, bool second) {
    TreeNode child = KeptHalf(node, second);
    const int64_t width = child.width;
    const int64_t stride = StrideFor(width);
    double* a = arena_.Allocate(width * stride);
    double* b = arena_.Allocate(width * stride);
    double* c = arena_.Allocate(width * stride);
    const ArenaScope scope(arena_);
    const Panel panel = PackPanel(node, second);
    const PanelResult result = FactorPanel(panel, problem_.sum, growth_, meter_);
    singular_pivot_ |= result.singular_pivot;
    child.pivot_sum += result.pivot_sum;

    const int64_t side1 = panel.pivot_strips();
    const int64_t side2 = side1 + panel.side_strips();
    UpdateLower<kBlock>(panel.pivots, width,
                        {{panel.V(side1), panel.U(side1), child.a, a, stride, 1.0},
                         {panel.V(side1), panel.U(side2), child.b, b, stride, 1.0},
                         {panel.V(side2), panel.U(side2), child.c, c, stride, 1.0}},
                        meter_);
    if (child.a.is_identity()) AddDiagonal(a, stride, width, problem_.a_identity);
    if (child.c.is_identity()) AddDiagonal(c, stride, width, problem_.c_identity);
    child.a = {a, stride};
    child.b = {b, stride};
    child.c = {c, stride};
    return child;
  }

  // First child: P = A22, R1 = A21, R2 = B21. Second child: P = C11, R1 = B21^T, R2 = C21^T.
  Panel PackPanel(const TreeNode& node, bool second) {
    const int64_t first_half = node.first_half();
    const int64_t second_half = node.width - first_half;
    Panel panel{.pivots = second ? first_half : second_half,
                .columns = second ? second_half : first_half,
                .u = nullptr,
                .v = nullptr};
    panel.u = arena_.Allocate(panel.strips() * kStrip * panel.pivots);
    panel.v = arena_.Allocate(panel.strips() * kStrip * panel.pivots);
    const MatrixView pivot_block = second ? node.c : node.a.Block(first_half, first_half);
    PackTransposed(pivot_block, panel.pivots, panel.pivots, true, panel.u);
    double* side1 = panel.U(panel.pivot_strips());
    double* side2 = panel.U(panel.pivot_strips() + panel.side_strips());
    if (second) {
      PackB21(node, second, side1);
      PackTransposed(node.c.Block(first_half, 0), panel.pivots, panel.columns, false, side2);
    } else {
      PackRows(node.a.Block(first_half, 0), panel.pivots, panel.columns, side1);
      PackB21(node, second, side2);
    }
    return panel;
  }

  const TreeProblem& problem_;
  Arena& arena_;
  WorkMeter& meter_;
  LeafBatch leaves_;
  HWY_ALIGN double growth_[kBlock] = {};
  bool singular_pivot_ = false;
};

TreeResult RunTreeOnTarget(const TreeProblem& problem, std::span<double> sums, Arena& arena,
                           WorkMeter& meter) {
  return TreeRun(problem, sums, arena, meter).Run();
}

void ComputeRootGramsOnTarget(const TreeNode& root, double* columns, double* rows, Arena& arena,
                              WorkMeter& meter) {
  const int64_t first_half = root.first_half();
  const int64_t second_half = root.width - first_half;
  const MatrixView b21 = root.b.Block(first_half, 0);
  const ArenaScope scope(arena);
  double* strips = arena.Allocate(StripCount(first_half) * kStrip * first_half);
  PackRows(b21, second_half, first_half, strips);
  UpdateLower<kStrip>(second_half, first_half,
                      {{strips, strips, {}, columns, StrideFor(first_half), -1.0}}, meter);
  if (rows == nullptr) return;
  PackTransposed(b21, first_half, second_half, false, strips);
  UpdateLower<kStrip>(first_half, second_half,
                      {{strips, strips, {}, rows, StrideFor(second_half), -1.0}}, meter);
}

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ess::linalg {
namespace {

HWY_EXPORT(RunTreeOnTarget);
HWY_EXPORT(ComputeRootGramsOnTarget);

// Scratch of the children of a node, following EliminateIdentity and EliminatePanel.
int64_t ScratchBelow(int64_t width, int64_t first_half, bool a_is_identity, bool c_is_identity) {
  if (width == kBlock) return 0;
  int64_t largest = 0;
  for (const bool second : {false, true}) {
    const int64_t kept = second ? width - first_half : first_half;
    const int64_t pivots = width - kept;
    const int64_t matrix = Arena::Rounded(kept * StrideFor(kept));
    const int64_t strips = StripCount(kept) * kStrip * pivots;
    if (second ? c_is_identity : a_is_identity) {
      const int64_t below =
          ScratchBelow(kept, FirstHalf(kept), !second && a_is_identity, second && c_is_identity);
      largest = std::max(largest, matrix + std::max(strips, below));
    } else {
      const int64_t panel = 2 * (StripCount(pivots) * kStrip * pivots + 2 * strips);
      const int64_t below = ScratchBelow(kept, FirstHalf(kept), false, false);
      largest = std::max(largest, 3 * matrix + std::max(panel, below));
    }
  }
  return largest;
}

}  // namespace

int64_t TreeScratch(const TreeNode& root) {
  const int64_t first_half = root.first_half();
  return std::max(StripCount(first_half) * kStrip * first_half,
                  ScratchBelow(root.width, first_half, root.a.is_identity(), root.c.is_identity()));
}

int64_t TreeScratch(int64_t width) {
  const TreeNode identity{.width = width};
  return std::max(TreeScratch(identity), ScratchBelow(width, FirstHalf(width), false, false));
}

absl::Status ComputeRootGrams(const TreeNode& root, double* columns, double* rows, Arena& arena,
                              const CancellationToken& cancellation) {
  WorkMeter meter(cancellation);
  HWY_DYNAMIC_DISPATCH(ComputeRootGramsOnTarget)(root, columns, rows, arena, meter);
  return meter.status();
}

absl::StatusOr<TreeResult> RunTree(const TreeProblem& problem, std::span<double> sums, Arena& arena,
                                   const CancellationToken& cancellation) {
  ESS_CHECK(static_cast<int64_t>(sums.size()) == problem.root.width);
  WorkMeter meter(cancellation);
  const TreeResult result = HWY_DYNAMIC_DISPATCH(RunTreeOnTarget)(problem, sums, arena, meter);
  if (!meter.status().ok()) return meter.status();
  return result;
}

}  // namespace ess::linalg
#endif  // HWY_ONCE
