// What the channel kernels know of 8 positions of a group of channels, and where it lies in memory.
//
// One vector holds the same number of kLanes channels, so every entry below is `lanes` doubles.
// Matrices are cut into tiles of 4 x 4 entries, row-major inside a tile; N is rounded up to whole
// tiles, and states beyond N are zero. Lower triangles keep the tiles on and below the diagonal,
// tile row by tile row.
#pragma once

#include <cstdint>

namespace ess::linalg {

inline constexpr int64_t kWindow = 8;  // Positions.
inline constexpr int64_t kTile = 4;
inline constexpr int64_t kTileEntries = kTile * kTile;
inline constexpr int64_t kMaxStates = 32;

// A matrix whose entries' squares sum up to less is zero: the triangles below never are, quite.
inline constexpr double kSmallestSquaredNorm = 1e-280;

// Strictly lower triangle of a window's own 8 x 8 block of T, row by row.
inline constexpr int64_t kInsideEntries = kWindow * (kWindow - 1) / 2;

constexpr int64_t LowerTile(int64_t row, int64_t column) { return row * (row + 1) / 2 + column; }

// Index of an entry in a lower triangle of tiles.
constexpr int64_t LowerEntry(int64_t row, int64_t column) {
  return kTileEntries * LowerTile(row / kTile, column / kTile) + row % kTile * kTile +
         column % kTile;
}

// Index of (position of the window, state) in a matrix of 2 x tiles tiles.
constexpr int64_t PositionEntry(int64_t tiles, int64_t position, int64_t state) {
  return kTileEntries * (position / kTile * tiles + state / kTile) + position % kTile * kTile +
         state % kTile;
}

// Positions [a, b), b = a + 8. The past of a position i has the factor C_i = [.., A_{i-1} b_{i-2},
// b_{i-1}] (states x inputs), its future O_i (outputs x states), H_i = O_i C_i. Both are kept as
// triangles, orthogonal factors left out: C_i = L_i Q^T and O_i = Q R_i, L_i and R_i lower.
struct ChannelWindow {
  double* past = nullptr;    // L_a: lower triangle.
  double* future = nullptr;  // R_b: lower triangle.
  // The window itself.
  double* transition = nullptr;  // [N]: product of the 8 gates.
  double* input = nullptr;       // [8, N]: b_j times the gates behind it, up to b.
  double* output = nullptr;      // [8, N]: c_r times the gates from a up to its own.
  double* inside = nullptr;      // T[a + r, a + j], j < r: kInsideEntries.
  // The description, with Z = R_b A L_a and Y = R_b input^T (A the transition).
  double* past_gram = nullptr;             // Z^T Z: lower triangle.
  double* couplings = nullptr;             // [tiles][4] tiles: L_a^T output^T (2), Z^T Y (2).
  double* window_gram = nullptr;           // Y^T Y: lower triangle of 2 x 2 tiles.
  double* squared_norms = nullptr;         // [8]: ||H_i||_F^2.
  double* largest_squared_norm = nullptr;  // Of the 8.
  // [8]: upper bounds of sigma_1(H_i)^2, often within a few percent; filled only on demand.
  double* norm_bounds = nullptr;
};

// Sizes, in doubles, for N states and vectors of `lanes` channels. Immutable.
class WindowLayout {
 public:
  WindowLayout(int64_t states, int64_t lanes)
      : states_(states), tiles_((states + kTile - 1) / kTile), lanes_(lanes) {}

  int64_t states() const { return states_; }
  int64_t tiles() const { return tiles_; }
  int64_t padded_states() const { return tiles_ * kTile; }
  int64_t lanes() const { return lanes_; }

  int64_t TriangleSize() const { return LowerTile(tiles_, 0) * kTileEntries * lanes_; }
  int64_t PositionsSize() const { return kWindow * padded_states() * lanes_; }
  // a, b or c of 8 positions, as ChannelRecurrence::FillLanes writes them.
  int64_t SourceSize() const { return kWindow * states_ * lanes_; }

  // All of a window but the triangles `past` and `future`.
  int64_t WindowSize() const {
    return TriangleSize() + 4 * PositionsSize() +
           (padded_states() + kInsideEntries + 3 * kTileEntries + 2 * kWindow + 1) * lanes_;
  }

  // A window in `memory`, without `past` and `future`.
  ChannelWindow At(double* memory) const {
    ChannelWindow window;
    const auto take = [&memory](int64_t size) {
      double* result = memory;
      memory += size;
      return result;
    };
    window.transition = take(padded_states() * lanes_);
    window.input = take(PositionsSize());
    window.output = take(PositionsSize());
    window.inside = take(kInsideEntries * lanes_);
    window.past_gram = take(TriangleSize());
    window.couplings = take(2 * PositionsSize());
    window.window_gram = take(3 * kTileEntries * lanes_);
    window.squared_norms = take(kWindow * lanes_);
    window.largest_squared_norm = take(lanes_);
    window.norm_bounds = take(kWindow * lanes_);
    return window;
  }

 private:
  int64_t states_;
  int64_t tiles_;
  int64_t lanes_;
};

// Gates, inputs and outputs of 8 positions: a, b, c, each row-major [8, N, lanes].
struct WindowSource {
  const double* a = nullptr;
  const double* b = nullptr;
  const double* c = nullptr;
  bool reads_before = false;
};

}  // namespace ess::linalg
