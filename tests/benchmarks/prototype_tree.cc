// Compiled for this very machine (-march=native): the prototype knows AVX-512 alone.
#include "tests/benchmarks/prototype_tree.h"

#ifdef ESS_PROTOTYPE_TREE

#include <sys/mman.h>

#include <cstdlib>

#include ESS_PROTOTYPE_TREE

namespace ess::benchmarks {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

class NativePrototypeTree final : public PrototypeTree {
 public:
  NativePrototypeTree(std::span<const double> matrix, int64_t length)
      : width_((length + 7) / 8 * 8),
        stride_(width_ + 8),
        tree_((size_t{32} << 20) + sizeof(double) * 3 * width_ * width_) {
    const size_t bytes =
        (sizeof(double) * (width_ + 8) * stride_ + kHugePage - 1) / kHugePage * kHugePage;
    matrix_.reset(static_cast<double*>(std::aligned_alloc(kHugePage, bytes)));
    madvise(matrix_.get(), bytes, MADV_HUGEPAGE);
    std::fill_n(matrix_.get(), bytes / sizeof(double), 0.0);
    for (int64_t row = 0; row < length; ++row) {
      std::copy_n(matrix.data() + row * length, row, matrix_.get() + row * stride_);
    }
    tree_.gthr = 1e200;
  }

  const std::vector<double>& CountAbove(double tau) override {
    tree_.run(matrix_.get(), stride_, width_, tau, false);
    return tree_.out;
  }

 private:
  struct Free {
    void operator()(double* memory) const { std::free(memory); }
  };
  const int width_;
  const int stride_;
  std::unique_ptr<double, Free> matrix_;
  Tree<double> tree_;
};

}  // namespace

std::string WhyNoPrototype() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")
             ? ""
             : "this machine has no AVX-512";
}

std::unique_ptr<PrototypeTree> MakePrototypeTree(std::span<const double> matrix, int64_t length) {
  return std::make_unique<NativePrototypeTree>(matrix, length);
}

}  // namespace ess::benchmarks

#else

#include <cstdlib>

namespace ess::benchmarks {

std::string WhyNoPrototype() { return ESS_NO_PROTOTYPE; }

std::unique_ptr<PrototypeTree> MakePrototypeTree(std::span<const double>, int64_t) { std::abort(); }

}  // namespace ess::benchmarks

#endif
