/* What drm_gpuvm.c, lib/rbtree.c and the headers that are taken from the kernel as they are want of the rest of it.
 *
 * Each thing costs at most what it costs in the kernel: reference counts are atomic, memory comes from malloc, and locks
 * and assertions are free. What the bench does not reach (locking reservations, fences) aborts.
 */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint32_t u32;
typedef uint64_t u64;

/* linux/compiler.h, linux/export.h */
#define __maybe_unused __attribute__((unused))
#define __context_unsafe(comment)
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))
#define EXPORT_SYMBOL(name)
#define EXPORT_SYMBOL_GPL(name)
#define static_assert _Static_assert

/* linux/container_of.h, linux/bits.h, linux/poison.h, linux/overflow.h, linux/err.h, linux/kconfig.h */
#define container_of(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))
#define BIT(n) (1UL << (n))
#define LIST_POISON1 ((void *)0x100)
#define LIST_POISON2 ((void *)0x122)
#define check_add_overflow(a, b, sum) __builtin_add_overflow(a, b, sum)
#define ERR_PTR(error) ((void *)(intptr_t)(error))
#define IS_ERR(pointer) ((uintptr_t)(pointer) >= (uintptr_t)-4095)
#define IS_ENABLED(option) 0
#define MODULE_DESCRIPTION(text) static_assert(true, text)
#define MODULE_LICENSE(name) static_assert(true, name)
static inline bool warns(const void *drm, bool condition) { return (void)drm, unlikely(condition); }
#define drm_WARN(drm, condition, ...) warns(drm, condition)
#define drm_WARN_ON(drm, condition) warns(drm, condition)
#define might_sleep() ((void)0)
#define unreached() (fprintf(stderr, "%s: not for this bench\n", __func__), abort())

/* linux/types.h, linux/atomic.h, asm/barrier.h, linux/rcupdate.h */
struct list_head { struct list_head *next, *prev; };
struct hlist_head { struct hlist_node *first; };
struct hlist_node { struct hlist_node *next, **pprev; };
#define smp_load_acquire(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define smp_store_release(p, value) __atomic_store_n(p, value, __ATOMIC_RELEASE)
#define xchg(p, value) __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST)
#define try_cmpxchg(p, old, new) __atomic_compare_exchange_n(p, old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)
#define rcu_assign_pointer(p, value) smp_store_release(&(p), value)
#define rcu_dereference_raw(p) READ_ONCE(p)

/* linux/kref.h, linux/mutex.h, linux/spinlock.h */
struct mutex { int unused; };
typedef struct { int unused; } spinlock_t;
#define mutex_lock(lock) ((void)(lock))
#define mutex_unlock(lock) ((void)(lock))
#define spin_lock_init(lock) ((void)(lock))
#define spin_lock(lock) ((void)(lock))
#define spin_unlock(lock) ((void)(lock))

struct kref { int count; };

static inline void kref_init(struct kref *kref) { kref->count = 1; }
static inline int kref_read(const struct kref *kref) { return READ_ONCE(kref->count); }
static inline void kref_get(struct kref *kref) { __atomic_fetch_add(&kref->count, 1, __ATOMIC_RELAXED); }

static inline bool kref_get_unless_zero(struct kref *kref)
{
	int count = kref_read(kref);

	while (count && !__atomic_compare_exchange_n(&kref->count, &count, count + 1, true, __ATOMIC_RELAXED,
						     __ATOMIC_RELAXED))
		;
	return count;
}

static inline int kref_put(struct kref *kref, void (*release)(struct kref *))
{
	if (__atomic_fetch_sub(&kref->count, 1, __ATOMIC_ACQ_REL) != 1)
		return 0;
	release(kref);
	return 1;
}

#define kref_put_mutex(kref, release, lock) kref_put(kref, release)

/* linux/slab.h */
#define GFP_KERNEL 0
#define kzalloc_obj(object) calloc(1, sizeof(object))
#define kfree(pointer) free(pointer)

static inline void *kmemdup(const void *from, size_t size, int flags)
{
	void *to = malloc(size);

	(void)flags;
	return to ? memcpy(to, from, size) : NULL;
}

/* linux/dma-resv.h */
enum dma_resv_usage { DMA_RESV_USAGE_BOOKKEEP };
struct dma_fence;
struct dma_resv { int unused; };
#define dma_resv_lock(resv, context) ((void)(resv))
#define dma_resv_unlock(resv) ((void)(resv))
#define dma_resv_held(resv) ((void)(resv), true)
#define dma_resv_assert_held(resv) ((void)(resv))
#define dma_resv_add_fence(resv, fence, usage) unreached()

/* drm/drm_device.h, drm/drm_drv.h */
struct drm_device { struct kref ref; };
static inline void drm_dev_get(struct drm_device *drm) { kref_get(&drm->ref); }
static inline void drm_dev_put(struct drm_device *drm) { __atomic_fetch_sub(&drm->ref.count, 1, __ATOMIC_ACQ_REL); }

/* drm/drm_gem.h */
struct drm_gem_object;
struct drm_gem_object_funcs { void (*free)(struct drm_gem_object *object); };

struct drm_gem_object {
	struct kref refcount;
	const struct drm_gem_object_funcs *funcs;
	struct dma_resv *resv;
	struct dma_resv own_resv;
	struct {
		struct list_head list;
		struct mutex lock;
	} gpuva;
};

void drm_gem_private_object_init(struct drm_device *drm, struct drm_gem_object *object, size_t size);
void drm_gem_object_free(struct kref *kref);
static inline void drm_gem_object_release(struct drm_gem_object *object) { (void)object; }
static inline void drm_gem_object_get(struct drm_gem_object *object) { kref_get(&object->refcount); }
static inline void drm_gem_object_put(struct drm_gem_object *object) { kref_put(&object->refcount, drm_gem_object_free); }
#define drm_gem_gpuva_assert_lock_held(vm, object) ((void)(vm), (void)(object))
#define drm_gem_for_each_gpuvm_bo(each, object) list_for_each_entry(each, &(object)->gpuva.list, list.entry.gem)

/* drm/drm_exec.h */
struct drm_exec { int unused; };
#define drm_exec_init(exec, flags, count) unreached()
#define drm_exec_fini(exec) ((void)(exec))
#define drm_exec_lock_obj(exec, object) ((void)(exec), (void)(object), unreached(), -EINVAL)
#define drm_exec_prepare_obj(exec, object, fences) ((void)(exec), (void)(object), (void)(fences), unreached(), -EINVAL)
#define drm_exec_prepare_array(exec, objects, count, fences) ((void)(objects), (void)(count), unreached(), -EINVAL)
#define drm_exec_until_all_locked(exec)
#define drm_exec_retry_on_contention(exec) ((void)(exec))
#define drm_exec_for_each_locked_object(exec, object) for (object = NULL; object;)
