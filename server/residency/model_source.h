// Where the state machine gets weights from: what it knows of files, devices and LibTorch.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/residency/model_options.h"

namespace ess::residency {

// The weights of one load, in memory until they are destroyed.
class Weights {
 public:
  virtual ~Weights() = default;

  // On their device; constant.
  virtual int64_t bytes() const = 0;

  // True when requests begin to get these weights for their model, false when they no longer do.
  // Called under a lock: quick, and no way back into the residency.
  virtual void SetServing(bool serving) {}
};

// Where the weights of a load came from.
enum class Tier { kDisk, kHost };

struct MemoryNeeds {
  std::string device;  // Resolved: "cpu", "cuda:0".
  int64_t bytes = 0;   // Upper bound, that of a load under way included.
};

struct LoadedWeights {
  std::unique_ptr<Weights> weights;
  Tier from = Tier::kDisk;
};

// Thread-safe. Called without locks, on threads of the residency.
class ModelSource {
 public:
  virtual ~ModelSource() = default;

  // What a load of this model would take. Reads little.
  virtual absl::StatusOr<MemoryNeeds> Measure(const CatalogueEntry& entry) = 0;

  // Bytes of a device that weights and work may take together; constant from the first call.
  virtual int64_t Budget(const std::string& device) = 0;

  // At most what Measure said, if nobody changes the files in between. Never called for one name by
  // two threads at once. `fresh`: from the files, whatever other memory has of them.
  virtual absl::StatusOr<LoadedWeights> Load(const CatalogueEntry& entry, bool fresh) = 0;

  // Gives memory of the device back to the system, after weights were destroyed.
  virtual void Reclaim(const std::string& device) = 0;

  // The model was unloaded on purpose: nothing of it stays in memory.
  virtual void Forget(const std::string& name) = 0;
};

}  // namespace ess::residency
