// Products of small dense matrices, dispatched to the best instruction set of the machine.
#pragma once

#include <cstdint>

#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

// An operand: row-major data, or those of its transpose.
struct ProductOperand {
  MatrixView view;
  bool transposed = false;
};

struct ProductSize {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t depth = 0;
  bool lower_only = false;  // Just the 8 x 8 blocks on and below the diagonal are written.
  bool lhs_lower = false;   // Zeros above the diagonal of the left operand, and of the right one.
  bool rhs_lower = false;
};

// out [rows, columns] = lhs [rows, depth] times rhs [depth, columns]. All sizes are multiples of 8.
void MultiplyMatrices(const ProductSize& size, const ProductOperand& lhs, const ProductOperand& rhs,
                      double* out, int64_t out_stride, Arena& arena);

// Doubles of scratch that MultiplyMatrices needs.
int64_t MultiplyScratch(const ProductSize& size);

// out = (I + strict)^-1, both [size, size]; `strict` is read below its diagonal only, and `out` is
// written on and below the diagonal, in whole 8 x 8 blocks. Cost: size^3 / 3 operations.
void InvertUnitLower(int64_t size, const double* strict, double* out);

}  // namespace ess::linalg
