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
};

// out [rows, columns] = lhs [rows, depth] times rhs [depth, columns]. All sizes are multiples of 8.
void MultiplyMatrices(const ProductSize& size, const ProductOperand& lhs, const ProductOperand& rhs,
                      double* out, int64_t out_stride, Arena& arena);

// Doubles of scratch that MultiplyMatrices needs.
int64_t MultiplyScratch(const ProductSize& size);

}  // namespace ess::linalg
