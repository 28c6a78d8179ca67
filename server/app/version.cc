#include "server/app/version.h"

namespace ess {

const char kVersion[] = ESS_VERSION;
const char kCommit[] = ESS_COMMIT;

}  // namespace ess
