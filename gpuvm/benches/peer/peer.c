/* The kernel's drm_gpuvm in a process of its own: reads lines "WHAT PATTERN COUNT", and answers each with a line
 * "NANOSECONDS MAPPINGS": the CPU time of the pattern from an empty VM on, and what is mapped in the end.
 *
 * WHAT is "all": what a driver in immediate mode does for each map beside its page tables, in the way of panthor: make
 * a vm_bo and obtain the object's, allocate the mapping, map, link, and clean up. What panthor allocates in case it is
 * needed is allocated here when it is. Or "tree": no vm_bo, no list of the object, and mappings that lie ready.
 */
#include <stdlib.h>
#include <time.h>

#include <drm/drm_gpuvm.h>

#define SLOT (64ull << 10)

struct machine {
	struct drm_gpuvm vm;
	struct drm_gem_object *objects[3];
	/* The vm_bo of the map on its way. */
	struct drm_gpuvm_bo *vm_bo;
	/* Mappings that lie ready, chained by their vm. NULL where they are to be allocated. */
	struct drm_gpuva *ready;
	bool tree_only;
};

static struct machine *machine(void *pointer) { return pointer; }

static struct drm_gpuva *take(struct machine *m)
{
	struct drm_gpuva *va;

	if (!m->tree_only)
		return calloc(1, sizeof(*va));
	va = m->ready;
	m->ready = (struct drm_gpuva *)va->vm;
	return va;
}

static void give(struct machine *m, struct drm_gpuva *va)
{
	if (!m->tree_only) {
		drm_gpuva_unlink_defer(va);
		free(va);
		return;
	}
	va->vm = (struct drm_gpuvm *)m->ready;
	m->ready = va;
}

static void link_to(struct machine *m, struct drm_gpuva *va, struct drm_gpuvm_bo *vm_bo)
{
	if (!m->tree_only)
		drm_gpuva_link(va, vm_bo);
}

static int step_map(struct drm_gpuva_op *op, void *priv)
{
	struct machine *m = machine(priv);
	struct drm_gpuva *va = take(m);

	drm_gpuva_map(&m->vm, va, &op->map);
	link_to(m, va, m->vm_bo);
	return 0;
}

static int step_remap(struct drm_gpuva_op *op, void *priv)
{
	struct machine *m = machine(priv);
	struct drm_gpuva *old = op->remap.unmap->va;
	struct drm_gpuva *prev = op->remap.prev ? take(m) : NULL;
	struct drm_gpuva *next = op->remap.next ? take(m) : NULL;

	drm_gpuva_remap(prev, next, &op->remap);
	if (prev)
		link_to(m, prev, old->vm_bo);
	if (next)
		link_to(m, next, old->vm_bo);
	give(m, old);
	return 0;
}

static int step_unmap(struct drm_gpuva_op *op, void *priv)
{
	drm_gpuva_unmap(&op->unmap);
	give(machine(priv), op->unmap.va);
	return 0;
}

static void vm_free(struct drm_gpuvm *vm) { (void)vm; }

static const struct drm_gpuvm_ops ops = {
	.vm_free = vm_free,
	.sm_step_map = step_map,
	.sm_step_remap = step_remap,
	.sm_step_unmap = step_unmap,
};

void drm_gem_private_object_init(struct drm_device *drm, struct drm_gem_object *object, size_t size)
{
	(void)drm, (void)size;
	kref_init(&object->refcount);
	object->resv = &object->own_resv;
	INIT_LIST_HEAD(&object->gpuva.list);
}

void drm_gem_object_free(struct kref *kref)
{
	struct drm_gem_object *object = container_of(kref, struct drm_gem_object, refcount);

	object->funcs->free(object);
}

static void check(bool fine, const char *what)
{
	if (!fine) {
		fprintf(stderr, "peer: %s\n", what);
		exit(1);
	}
}

static void map(struct machine *m, u64 addr, u64 range, int object, u64 offset)
{
	struct drm_gpuvm_map_req req = {
		.map.va.addr = addr,
		.map.va.range = range,
		.map.gem.obj = m->objects[object],
		.map.gem.offset = offset,
	};

	if (!m->tree_only)
		m->vm_bo = drm_gpuvm_bo_obtain_prealloc(drm_gpuvm_bo_create(&m->vm, m->objects[object]));
	check(!drm_gpuvm_sm_map(&m->vm, m, &req), "a map was refused");
	if (!m->tree_only) {
		drm_gpuvm_bo_put_deferred(m->vm_bo);
		drm_gpuvm_bo_deferred_cleanup(&m->vm);
	}
}

/* Sebastiano Vigna's splitmix64. */
static u64 splitmix64(u64 *state)
{
	u64 z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static u64 random_offset(u64 *state) { return splitmix64(state) % (1 << 20) * SLOT; }

/* The patterns of tests/common/mod.rs. */
static void run(struct machine *m, const char *pattern, u64 count)
{
	u64 i, slot, state = 1;

	if (!strcmp(pattern, "seq")) {
		for (i = 0; i < count; i++)
			map(m, i * SLOT, SLOT, 1, i * SLOT);
	} else if (!strcmp(pattern, "random")) {
		for (i = 0; i < count; i++) {
			slot = splitmix64(&state) % (64 * count);
			map(m, slot * SLOT, SLOT, 1, random_offset(&state));
		}
	} else if (!strcmp(pattern, "rebind")) {
		for (i = 0; i < count; i++)
			map(m, 7 * SLOT, SLOT, i % 2, 0);
	} else if (!strcmp(pattern, "split")) {
		map(m, 0, 64 * count * SLOT, 1, 0);
		for (i = 0; i < count; i++) {
			slot = 1 + splitmix64(&state) % (64 * count - 2);
			map(m, slot * SLOT, SLOT, 2, random_offset(&state));
		}
	} else {
		check(false, "no such pattern");
	}
}

static u64 cpu_time(void)
{
	struct timespec now;

	check(!clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now), "no CPU time");
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

int main(void)
{
	struct drm_device drm;
	struct drm_gem_object *root;
	struct drm_gpuva *va, *next;
	char what[16], pattern[16];
	unsigned long long count;
	int i;

	kref_init(&drm.ref);
	root = drm_gpuvm_resv_object_alloc(&drm);
	while (scanf("%15s %15s %llu", what, pattern, &count) == 3) {
		struct machine m = { .tree_only = !strcmp(what, "tree") };
		struct drm_gpuva *stock = NULL;
		u64 mappings = 0, start, end;

		check(m.tree_only || !strcmp(what, "all"), "neither \"tree\" nor \"all\"");
		for (i = 0; i < 3; i++) {
			m.objects[i] = drm_gpuvm_resv_object_alloc(&drm);
			m.objects[i]->resv = root->resv;
		}
		drm_gpuvm_init(&m.vm, "peer", DRM_GPUVM_IMMEDIATE_MODE, &drm, root, 0, 64 * count * SLOT, 0, 0, &ops);
		if (m.tree_only) {
			stock = malloc((2 * count + 4) * sizeof(*stock));
			memset(stock, 0, (2 * count + 4) * sizeof(*stock));
			for (u64 n = 2 * count + 4; n-- > 0;)
				give(&m, &stock[n]);
		}

		start = cpu_time();
		run(&m, pattern, count);
		end = cpu_time();

		drm_gpuvm_for_each_va_safe(va, next, &m.vm) {
			mappings++;
			drm_gpuva_remove(va);
			give(&m, va);
		}
		drm_gpuvm_bo_deferred_cleanup(&m.vm);
		drm_gpuvm_put(&m.vm);
		for (i = 0; i < 3; i++)
			drm_gem_object_put(m.objects[i]);
		free(stock);
		printf("%llu %llu\n", (unsigned long long)(end - start), (unsigned long long)mappings);
		fflush(stdout);
	}
	return 0;
}
