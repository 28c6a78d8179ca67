// SHA-256 (FIPS 180-4), piece by piece.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace ess {

// Not thread-safe. About 1 GB/s on a core with SHA instructions.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Add(const void* data, size_t size);
  void Add(std::string_view data) { Add(data.data(), data.size()); }

  // The digest in lower-case hex. Nothing may be added afterwards.
  std::string Hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Of one piece.
std::string Sha256Hex(std::string_view data);

}  // namespace ess
