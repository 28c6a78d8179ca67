#include "server/operators/feature_dtype.h"

#include "server/base/log.h"

namespace ess::operators {

double FeatureEpsilon(c10::ScalarType dtype) {
  switch (c10::isComplexType(dtype) ? c10::toRealValueType(dtype) : dtype) {
    case c10::ScalarType::Double:
      return 0x1p-52;
    case c10::ScalarType::Float:
      return 0x1p-23;
    case c10::ScalarType::Half:
      return 0x1p-10;
    case c10::ScalarType::BFloat16:
      return 0x1p-7;
    default:
      break;
  }
  ESS_CHECK(false && "a floating dtype");
  return 0;
}

}  // namespace ess::operators
