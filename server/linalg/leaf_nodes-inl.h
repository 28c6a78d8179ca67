// The last levels of the inertia tree: nodes of 8 positions, one node per vector lane. Included
// once per Highway target.
#if defined(ESS_LINALG_LEAF_NODES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_LEAF_NODES_INL_H_
#undef ESS_LINALG_LEAF_NODES_INL_H_
#else
#define ESS_LINALG_LEAF_NODES_INL_H_
#endif

#include <cstdint>
#include <span>

#include "hwy/highway.h"
#include "server/linalg/tile_kernels-inl.h"
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

// Eliminates the pivot rows of a child; returns how many pivots were negative, per lane.
template <int kHalf>
HWY_INLINE Vec EliminateLeaf(LeafChild<kHalf>& child, LeafMonitor& monitor) {
  const Float64 d;
  Vec negative = hn::Zero(d);
  auto& panel = child.panel;
  for (int k = 0; k < kHalf; ++k) {
    const Vec pivot = panel[k][k];
    const Vec inverse = hn::Div(hn::Set(d, 1.0), pivot);
    const Vec one_if_negative = hn::IfThenElseZero(hn::Lt(pivot, hn::Zero(d)), hn::Set(d, 1.0));
    negative = hn::Add(negative, one_if_negative);
    monitor.singular = hn::Or(monitor.singular, hn::Not(hn::Gt(hn::Abs(pivot), hn::Zero(d))));
    for (int i = k + 1; i < kHalf; ++i) {
      const Vec multiplier = hn::Mul(panel[k][i], inverse);
      for (int j = i; j < 3 * kHalf; ++j) {
        panel[i][j] = hn::NegMulAdd(multiplier, panel[k][j], panel[i][j]);
      }
    }
    const Vec* row1 = panel[k] + kHalf;
    const Vec* row2 = panel[k] + 2 * kHalf;
    for (int i = 0; i < kHalf; ++i) {
      const Vec scaled1 = hn::Mul(row1[i], inverse);
      const Vec scaled2 = hn::Mul(row2[i], inverse);
      const Vec product1 = hn::Abs(hn::Mul(scaled1, row1[i]));
      const Vec product2 = hn::Abs(hn::Mul(scaled2, row2[i]));
      monitor.growth = hn::Max(monitor.growth, hn::Max(product1, product2));
      for (int j = 0; j <= i; ++j) {
        Vec& a = child.a[Lower(i, j)];
        Vec& c = child.c[Lower(i, j)];
        a = hn::NegMulAdd(scaled1, row1[j], a);
        c = hn::NegMulAdd(scaled2, row2[j], c);
      }
      for (int j = 0; j < i; ++j) {
        Vec& b = child.b[StrictlyLower(i, j)];
        b = hn::NegMulAdd(scaled1, row2[j], b);
      }
    }
  }
  return negative;
}

// counts[j]: negative pivots on the way to position j of a node of kWidth positions.
template <int kWidth>
HWY_INLINE void CountLeaf(const Vec* a, const Vec* b, const Vec* c, const Vec& negative,
                          LeafMonitor& monitor, Vec* counts) {
  const Float64 d;
  if constexpr (kWidth == 1) {
    counts[0] = hn::Add(negative, hn::IfThenElseZero(hn::Lt(a[0], hn::Zero(d)), hn::Set(d, 1.0)));
  } else {
    constexpr int kHalf = kWidth / 2;
    for (const bool second : {false, true}) {
      LeafChild<kHalf> child;
      SplitLeaf<kHalf>(a, b, c, second, child);
      const Vec sum = hn::Add(negative, EliminateLeaf<kHalf>(child, monitor));
      CountLeaf<kHalf>(child.a, child.b, child.c, sum, monitor, counts + (second ? kHalf : 0));
    }
  }
}

// Collects nodes of 8 positions and finishes them 8 at a time.
class LeafBatch {
 public:
  LeafBatch(double tau, std::span<int32_t> counts) : tau_(tau), counts_(counts) {}

  void Add(const TreeNode& node) {
    nodes_[size_] = {node.first_position, node.negative_pivots};
    double* entry = entries_ + size_;
    const auto put = [&entry](double value) {
      *entry = value;
      entry += kBlock;
    };
    const auto put_lower = [&put, this](const MatrixView& matrix) {
      for (int i = 0; i < kBlock; ++i) {
        for (int j = 0; j <= i; ++j) {
          put(!matrix.is_tau_identity() ? matrix.data[i * matrix.stride + j] : i == j ? tau_ : 0);
        }
      }
    };
    put_lower(node.a);
    for (int i = 1; i < kBlock; ++i) {
      for (int j = 0; j < i; ++j) put(node.b.data[i * node.b.stride + j]);
    }
    put_lower(node.c);
    if (++size_ == kBlock) Finish();
  }

  // Counts what is waiting. Lanes without a node repeat the first one.
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
      Vec counts[kBlock];
      LeafMonitor monitor{hn::Zero(d), hn::Lt(hn::Zero(d), hn::Zero(d))};
      CountLeaf<kBlock>(entries, entries + kFirstB, entries + kFirstC, hn::Zero(d), monitor,
                        counts);
      Store(lane, counts);
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

  void Store(int first_lane, const Vec* counts) {
    HWY_ALIGN double values[kBlock];
    for (int j = 0; j < kBlock; ++j) {
      hn::Store(counts[j], Float64(), values);
      for (int64_t lane = 0; lane < kLanes && first_lane + lane < size_; ++lane) {
        const Waiting& node = nodes_[first_lane + lane];
        counts_[node.first_position + j] =
            static_cast<int32_t>(node.negative_pivots) + static_cast<int32_t>(values[lane]);
      }
    }
  }

  struct Waiting {
    int64_t first_position;
    int64_t negative_pivots;
  };
  HWY_ALIGN double entries_[kEntries * kBlock];  // [entry of A, B, C][node]
  Waiting nodes_[kBlock];
  int64_t size_ = 0;
  const double tau_;
  const std::span<int32_t> counts_;
  double growth_ = 0;
  bool singular_ = false;
};

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_LEAF_NODES_INL_H_
