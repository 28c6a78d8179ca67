// The last levels of the inertia tree: nodes of 8 positions, one node per vector lane. Included
// once per Highway target.
#if defined(ESS_LINALG_LEAF_NODES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_LEAF_NODES_INL_H_
#undef ESS_LINALG_LEAF_NODES_INL_H_
#else
#define ESS_LINALG_LEAF_NODES_INL_H_
#endif

#include <cmath>
#include <cstdint>
#include <span>

#include "hwy/highway.h"
#include "server/linalg/float64_vectors-inl.h"
#include "server/linalg/tree_workspace.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

// Index into a packed lower triangle, and into a packed strictly lower one; row first.
constexpr int Lower(int row, int column) { return row * (row + 1) / 2 + column; }
constexpr int StrictlyLower(int row, int column) { return row * (row - 1) / 2 + column; }

struct LeafMonitor {
  Vec growth;
  hn::Mask<Float64> singular;
};

// Pivot rows [P | R1 | R2] of one child of a node of `2 * kHalf` positions, and what it keeps.
template <int kHalf>
struct LeafChild {
  Vec panel[kHalf][3 * kHalf];
  Vec a[Lower(kHalf, 0)];
  Vec b[StrictlyLower(kHalf, 0) + 1];  // One more: an array of no element is not allowed.
  Vec c[Lower(kHalf, 0)];
};

template <int kHalf>
HWY_INLINE void SplitLeaf(const Vec* a, const Vec* b, const Vec* c, bool second,
                          LeafChild<kHalf>& child) {
  for (int k = 0; k < kHalf; ++k) {
    for (int j = 0; j < kHalf; ++j) {
      // The first child eliminates rows of the second half; the second child, columns of the first.
      if (j >= k) child.panel[k][j] = second ? c[Lower(j, k)] : a[Lower(kHalf + j, kHalf + k)];
      child.panel[k][kHalf + j] = second ? b[StrictlyLower(kHalf + j, k)] : a[Lower(kHalf + k, j)];
      child.panel[k][2 * kHalf + j] =
          second ? c[Lower(kHalf + j, k)] : b[StrictlyLower(kHalf + k, j)];
    }
  }
  const int first = second ? kHalf : 0;
  for (int i = 0; i < kHalf; ++i) {
    for (int j = 0; j <= i; ++j) {
      child.a[Lower(i, j)] = a[Lower(first + i, first + j)];
      child.c[Lower(i, j)] = c[Lower(first + i, first + j)];
      if (j < i) child.b[StrictlyLower(i, j)] = b[StrictlyLower(first + i, first + j)];
    }
  }
}

// Adds a pivot to what a leaf gathers: its sign to a count, or itself to a product.
template <PivotSum kSum>
HWY_INLINE Vec GatherPivot(const Vec& gathered, const Vec& pivot) {
  const Float64 d;
  if constexpr (kSum == PivotSum::kLogAbs) return hn::Mul(gathered, pivot);
  const auto negative = hn::Lt(pivot, hn::Zero(d));
  return hn::Add(gathered, hn::IfThenElseZero(negative, hn::Set(d, 1.0)));
}

// Eliminates the pivot rows of a child and gathers their pivots.
template <int kHalf, PivotSum kSum>
HWY_INLINE Vec EliminateLeaf(LeafChild<kHalf>& child, Vec gathered, LeafMonitor& monitor) {
  const Float64 d;
  auto& panel = child.panel;
  Vec scaled[kHalf][2 * kHalf];  // [R1 | R2], each row divided by its pivot.
  for (int k = 0; k < kHalf; ++k) {
    const Vec pivot = panel[k][k];
    const Vec inverse = hn::Div(hn::Set(d, 1.0), pivot);
    gathered = GatherPivot<kSum>(gathered, pivot);
    monitor.singular = hn::Or(monitor.singular, hn::Not(hn::Gt(hn::Abs(pivot), hn::Zero(d))));
    for (int i = k + 1; i < kHalf; ++i) {
      const Vec multiplier = hn::Mul(panel[k][i], inverse);
      for (int j = i; j < 3 * kHalf; ++j) {
        panel[i][j] = hn::NegMulAdd(multiplier, panel[k][j], panel[i][j]);
      }
    }
    for (int j = 0; j < 2 * kHalf; ++j) {
      const Vec entry = panel[k][kHalf + j];
      scaled[k][j] = hn::Mul(entry, inverse);
      monitor.growth = hn::Max(monitor.growth, hn::Abs(hn::Mul(scaled[k][j], entry)));
    }
  }
  // Entry by entry, so that each is read and written once.
  const auto subtract = [&](Vec& entry, int row, int column) HWY_ATTR {
    Vec sum = entry;
    for (int k = 0; k < kHalf; ++k) {
      sum = hn::NegMulAdd(scaled[k][row], panel[k][kHalf + column], sum);
    }
    entry = sum;
  };
  for (int i = 0; i < kHalf; ++i) {
    for (int j = 0; j <= i; ++j) {
      subtract(child.a[Lower(i, j)], i, j);
      subtract(child.c[Lower(i, j)], kHalf + i, kHalf + j);
      if (j < i) subtract(child.b[StrictlyLower(i, j)], i, kHalf + j);
    }
  }
  return gathered;
}

// gathered[j]: what the pivots on the way to position j of a node of kWidth positions give.
template <int kWidth, PivotSum kSum>
HWY_INLINE void FinishLeaf(const Vec* a, const Vec* b, const Vec* c, const Vec& before,
                           LeafMonitor& monitor, Vec* gathered) {
  if constexpr (kWidth == 1) {
    gathered[0] = GatherPivot<kSum>(before, a[0]);
  } else {
    constexpr int kHalf = kWidth / 2;
    for (const bool second : {false, true}) {
      LeafChild<kHalf> child;
      SplitLeaf<kHalf>(a, b, c, second, child);
      const Vec sum = EliminateLeaf<kHalf, kSum>(child, before, monitor);
      FinishLeaf<kHalf, kSum>(child.a, child.b, child.c, sum, monitor,
                              gathered + (second ? kHalf : 0));
    }
  }
}

// Collects nodes of 8 positions and finishes them 8 at a time.
class LeafBatch {
 public:
  LeafBatch(const TreeProblem& problem, std::span<double> sums) : problem_(problem), sums_(sums) {}

  void Add(const TreeNode& node) {
    nodes_[size_] = {node.first_position, node.pivot_sum};
    double* entry = entries_ + size_;
    const auto put = [&entry](double value) {
      *entry = value;
      entry += kBlock;
    };
    const auto put_lower = [&put](const MatrixView& matrix, double identity) {
      for (int i = 0; i < kBlock; ++i) {
        for (int j = 0; j <= i; ++j) {
          put(!matrix.is_identity() ? matrix.data[i * matrix.stride + j] : i == j ? identity : 0);
        }
      }
    };
    put_lower(node.a, problem_.a_identity);
    for (int i = 1; i < kBlock; ++i) {
      for (int j = 0; j < i; ++j) put(node.b.data[i * node.b.stride + j]);
    }
    put_lower(node.c, problem_.c_identity);
    if (++size_ == kBlock) Finish();
  }

  // Sums up what is waiting. Lanes without a node repeat the first one.
  HWY_NOINLINE void Finish() {
    if (size_ == 0) return;
    const Float64 d;
    for (int e = 0; e < kEntries; ++e) {
      for (int64_t lane = size_; lane < kBlock; ++lane) {
        entries_[e * kBlock + lane] = entries_[e * kBlock];
      }
    }
    for (int lane = 0; lane < kBlock; lane += kLanes) {
      Vec entries[kEntries];
      for (int e = 0; e < kEntries; ++e) entries[e] = hn::Load(d, entries_ + e * kBlock + lane);
      Vec gathered[kBlock];
      LeafMonitor monitor{hn::Zero(d), hn::Lt(hn::Zero(d), hn::Zero(d))};
      if (problem_.sum == PivotSum::kLogAbs) {
        FinishLeaf<kBlock, PivotSum::kLogAbs>(entries, entries + kFirstB, entries + kFirstC,
                                              hn::Set(d, 1.0), monitor, gathered);
      } else {
        FinishLeaf<kBlock, PivotSum::kNegative>(entries, entries + kFirstB, entries + kFirstC,
                                                hn::Zero(d), monitor, gathered);
      }
      Store(lane, gathered);
      growth_ = std::max(growth_, hn::GetLane(hn::MaxOfLanes(d, monitor.growth)));
      singular_ |= !hn::AllFalse(d, monitor.singular);
    }
    size_ = 0;
  }

  double growth() const { return growth_; }
  bool singular() const { return singular_; }

 private:
  static constexpr int kFirstB = Lower(kBlock, 0);
  static constexpr int kFirstC = kFirstB + StrictlyLower(kBlock, 0);
  static constexpr int kEntries = kFirstC + Lower(kBlock, 0);

  void Store(int first_lane, const Vec* gathered) {
    HWY_ALIGN double values[kBlock];
    for (int j = 0; j < kBlock; ++j) {
      hn::Store(gathered[j], Float64(), values);
      for (int64_t lane = 0; lane < kLanes && first_lane + lane < size_; ++lane) {
        const Waiting& node = nodes_[first_lane + lane];
        const double sum =
            problem_.sum == PivotSum::kLogAbs ? std::log(std::abs(values[lane])) : values[lane];
        sums_[node.first_position + j] = node.pivot_sum + sum;
      }
    }
  }

  struct Waiting {
    int64_t first_position;
    double pivot_sum;
  };
  HWY_ALIGN double entries_[kEntries * kBlock];  // [entry of A, B, C][node]
  Waiting nodes_[kBlock];
  int64_t size_ = 0;
  const TreeProblem& problem_;
  const std::span<double> sums_;
  double growth_ = 0;
  bool singular_ = false;
};

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_LEAF_NODES_INL_H_
