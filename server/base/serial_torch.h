// Keeps LibTorch and its MKL to one thread inside a scope.
#pragma once

namespace ess {

// While it lives, LibTorch calls of *this* thread use no other thread. Our own pool shares out the
// heads; without this each of its threads would start an OpenMP team of its own. Other threads,
// and LibTorch's process-wide setting, are not changed. Thread-compatible: made and destroyed on
// the same thread.
class SerialTorch {
 public:
  SerialTorch();
  ~SerialTorch();
  SerialTorch(const SerialTorch&) = delete;
  SerialTorch& operator=(const SerialTorch&) = delete;

 private:
  const int previous_openmp_threads_;
  const int previous_mkl_threads_;
};

}  // namespace ess
