#include "server/base/cut_text.h"

#include "gtest/gtest.h"

namespace ess {
namespace {

TEST(CutTextTest, LeavesWhatIsShortEnough) { EXPECT_EQ(CutText("abc", 3), "abc"); }

TEST(CutTextTest, MarksWhatItCuts) { EXPECT_EQ(CutText("abcd", 3), "abc..."); }

TEST(CutTextTest, CutsBeforeACharacterThatDoesNotFit) {
  EXPECT_EQ(CutText("a\u00e9\u00e9", 4), "a\u00e9...");
  EXPECT_EQ(CutText("\U0001f600", 3), "...");
}

}  // namespace
}  // namespace ess
