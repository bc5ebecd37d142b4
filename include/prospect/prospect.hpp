// The whole host side of Prospect in one include, but for what needs another library: the head path
// (cpu/head.hpp, Eigen) and the adapters. Each header also stands alone.
#pragma once

#include <prospect/batch.hpp>
#include <prospect/class_weights.hpp>
#include <prospect/cpu/aot.hpp>
#include <prospect/cpu/ranks.hpp>
#include <prospect/cpu/rewards.hpp>
#include <prospect/cpu/sequences.hpp>
#include <prospect/cpu/token_losses.hpp>
#include <prospect/cpu/token_reducers.hpp>
#include <prospect/cpu/tokens.hpp>
#include <prospect/cpu/values.hpp>
#include <prospect/executor.hpp>
#include <prospect/layout.hpp>
#include <prospect/losses/losses.hpp>
#include <prospect/reference_point.hpp>
#include <prospect/vocabulary.hpp>
