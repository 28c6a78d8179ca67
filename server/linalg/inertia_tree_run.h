// The recursion of the inertia tree, dispatched to the best instruction set of the machine.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

// Doubles of scratch that RunTree and ComputeRootGrams need for a root of this width.
int64_t TreeScratch(int64_t width);

// Fills columns = B21^T B21 and rows = B21 B21^T for the root's halves (lower triangles, whole 8 x
// 8 blocks). Each is square with StrideFor(its width).
absl::Status ComputeRootGrams(const TreeNode& root, double* columns, double* rows, Arena& arena,
                              const CancellationToken& cancellation);

// counts[i] = negative eigenvalues of M_i for each position i of the root.
// REQUIRES: counts.size() == problem.root.width.
absl::StatusOr<TreeResult> RunTree(const TreeProblem& problem, std::span<int32_t> counts,
                                   Arena& arena, const CancellationToken& cancellation);

}  // namespace ess::linalg
