#include "server/admission/byte_budget.h"

#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "tests/support/status_matchers.h"

namespace ess::admission {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::HasSubstr;

TEST(ByteBudgetTest, RefusesWhatIsNotFreeAndNamesTheLimit) {
  ByteBudget budget(100, "max_bytes");
  const auto first = budget.Reserve(60);
  ASSERT_THAT(first, IsOk());

  EXPECT_THAT(budget.Reserve(41),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("41 bytes are asked for and 40 of 100 are free (max_bytes)")));
  EXPECT_THAT(budget.Reserve(40), IsOk());
}

TEST(ByteBudgetTest, GivesBackWithTheReservation) {
  ByteBudget budget(100, "max_bytes");
  for (int i = 0; i < 3; ++i) EXPECT_THAT(budget.Reserve(100), IsOk());

  ByteBudget::Reservation held = *budget.Reserve(100);
  ByteBudget::Reservation moved = std::move(held);
  EXPECT_FALSE(budget.Reserve(1).ok());
  held = {};
  EXPECT_FALSE(budget.Reserve(1).ok());
  moved = {};
  EXPECT_THAT(budget.Reserve(100), IsOk());
}

TEST(ByteBudgetTest, AssigningOverAReservationGivesTheOldOneBack) {
  ByteBudget budget(100, "max_bytes");
  ByteBudget::Reservation held = *budget.Reserve(70);
  held = *budget.Reserve(30);

  EXPECT_THAT(budget.Reserve(71), StatusIs(absl::StatusCode::kResourceExhausted, ::testing::_));
  EXPECT_THAT(budget.Reserve(70), IsOk());
}

TEST(ByteBudgetTest, RefusesAnyNumberOfBytesWithoutOverflow) {
  ByteBudget budget(100, "max_bytes");
  const auto held = budget.Reserve(100);

  EXPECT_FALSE(budget.Reserve(std::numeric_limits<int64_t>::max()).ok());
}

}  // namespace
}  // namespace ess::admission
