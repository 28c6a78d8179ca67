// Products of small matrices whose entries are vectors: one channel per lane, no work across lanes.
// Included once per Highway target.
#if defined(ESS_LINALG_LANE_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ESS_LINALG_LANE_TILES_INL_H_
#undef ESS_LINALG_LANE_TILES_INL_H_
#else
#define ESS_LINALG_LANE_TILES_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "server/linalg/channel_window.h"
#include "server/linalg/float64_vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ess::linalg::HWY_NAMESPACE {

HWY_INLINE Vec Entry(const double* matrix, int64_t index) {
  return hn::Load(Float64(), matrix + index * kLanes);
}
HWY_INLINE void SetEntry(Vec value, double* matrix, int64_t index) {
  hn::Store(value, Float64(), matrix + index * kLanes);
}
HWY_INLINE Vec Broadcast(double value) { return hn::Set(Float64(), value); }
HWY_INLINE Vec Zero() { return hn::Zero(Float64()); }

HWY_INLINE const double* TileAt(const double* matrix, int64_t tile) {
  return matrix + tile * kTileEntries * kLanes;
}
HWY_INLINE double* TileAt(double* matrix, int64_t tile) {
  return matrix + tile * kTileEntries * kLanes;
}

// How a product reads a tile: as it is or transposed; a tile on the diagonal of a lower triangle
// has nothing above its own diagonal.
enum class Read { kFull, kLower, kTransposed, kLowerTransposed };
constexpr bool IsTransposed(Read read) {
  return read == Read::kTransposed || read == Read::kLowerTransposed;
}
constexpr bool IsZero(Read read, int64_t row, int64_t column) {
  return (read == Read::kLower && row < column) || (read == Read::kLowerTransposed && row > column);
}
constexpr int64_t IndexOf(Read read, int64_t row, int64_t column) {
  return IsTransposed(read) ? column * kTile + row : row * kTile + column;
}

// With 32 registers a whole tile is summed up at once, with 16 half of its columns.
inline constexpr int kTileColumns = kWideRegisters ? 4 : 2;

// Columns [kColumn, kColumn + kTileColumns) of one tile, in registers. kOutput says which entries
// are wanted: kFull, kLower or kLowerTransposed; the others are not to be read.
template <int kColumn, Read kOutput = Read::kFull>
struct TileSum {
  Vec entry[kTile][kTileColumns];

  HWY_INLINE void Clear() {
    for (int r = 0; r < kTile; ++r) {
      for (int c = 0; c < kTileColumns; ++c) entry[r][c] = Zero();
    }
  }

  HWY_INLINE void LoadFrom(const double* tile) {
    for (int r = 0; r < kTile; ++r) {
      for (int c = 0; c < kTileColumns; ++c) entry[r][c] = Entry(tile, r * kTile + kColumn + c);
    }
  }

  // Adds (or subtracts) the product of two tiles.
  template <Read kLeft, Read kRight, bool kSubtract = false>
  HWY_INLINE void Add(const double* left, const double* right) {
#pragma GCC unroll 4
    for (int k = 0; k < kTile; ++k) {
      Vec b[kTileColumns];
#pragma GCC unroll 4
      for (int c = 0; c < kTileColumns; ++c) b[c] = Entry(right, IndexOf(kRight, k, kColumn + c));
#pragma GCC unroll 4
      for (int r = 0; r < kTile; ++r) {
        if (IsZero(kLeft, r, k)) continue;
        const Vec a = Entry(left, IndexOf(kLeft, r, k));
#pragma GCC unroll 4
        for (int c = 0; c < kTileColumns; ++c) {
          if (IsZero(kRight, k, kColumn + c) || IsZero(kOutput, r, kColumn + c)) continue;
          entry[r][c] =
              kSubtract ? hn::NegMulAdd(a, b[c], entry[r][c]) : hn::MulAdd(a, b[c], entry[r][c]);
        }
      }
    }
  }

  HWY_INLINE void StoreTo(double* tile) const {
    for (int r = 0; r < kTile; ++r) {
      for (int c = 0; c < kTileColumns; ++c) {
        SetEntry(entry[r][c], tile, r * kTile + kColumn + c);
      }
    }
  }
};

}  // namespace ess::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ESS_LINALG_LANE_TILES_INL_H_
