// Wrong on purpose: this function is defined anew in every program part that includes it.
#pragma once

int not_inline() { return 1; }
